"""Every command and every example of the README and of the help texts runs, as it stands there."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from charrnn.cli import main
from tests.conftest import ROOT, read_run

README = (ROOT / "README.md").read_text(encoding="utf-8")
SET_UP = 2  # the first two blocks set up and test: they are what brought us here
PICTURES = importlib.util.find_spec("matplotlib") is not None  # an extra
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", README, re.M | re.S)[SET_UP:]


def commands() -> dict[str, click.Command]:
    return dict(main.commands)


def examples(command: click.Command) -> list[str]:
    """Return the lines of a help text that show the command at work."""
    return re.findall(r"^  +((?:.* \| )?charrnn .*)$", command.help or "", re.M)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the examples speak of."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "data", folder / "data")
    shutil.copytree(ROOT / "data", folder / "src")
    shutil.copy(ROOT / "data" / "kernel.c", folder / "kernel.c")
    shutil.copy(ROOT / "data" / "play.txt", folder / "corpus.txt")
    shutil.copy(ROOT / "data" / "play.txt", folder / "draft.txt")
    (folder / "checkpoints").mkdir()
    shutil.copy(ROOT / "checkpoints" / "example.npz", folder / "checkpoints")
    shell(folder, "charrnn train data/play.txt")
    return folder


def shell(folder: Path, script: str) -> str:
    """Run a script with short trainings and ``charrnn`` on the path; return what it wrote to stdout."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("CHARRNN_")}
    env |= {"CHARRNN_TRAIN_MAX_STEPS": "10", "CHARRNN_TRAIN_HIDDEN_SIZE": "16", "PYTHONPATH": str(ROOT)}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    done = subprocess.run(
        ["bash", "-euc", script], cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{script}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("block", BLOCKS)
def test_commands_of_the_readme(folder: Path, block: str) -> None:
    if "plot" in block and not PICTURES:
        pytest.skip("matplotlib is not installed")
    out = shell(folder, block)
    if "sample" in block and ">" not in block:
        assert len(out) >= 50 or out.count("\n") >= 5


@pytest.mark.parametrize("name", sorted(commands()))
def test_examples_of_the_help(folder: Path, name: str) -> None:
    lines = examples(commands()[name])
    assert lines
    for line in lines:
        if "plot" in line and "--terminal" not in line and not PICTURES:
            continue
        # each begins afresh: a run or a file of the same name may be there from another example
        others = "verse.npz checkpoints/corpus.npz checkpoints/stdin.npz checkpoints/src.npz"
        shell(folder, f"touch checkpoints/play.npz; rm -f {others}\n{line}")


def test_every_command_and_option_is_explained() -> None:
    for name, command in commands().items():
        assert f"charrnn {name}" in README
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, parameter.name
                assert any(re.search(rf"{flag}\b", README) for flag in parameter.opts), parameter.name


def test_every_exit_code_is_explained() -> None:
    from charrnn.errors import ExitCode

    codes = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", README, re.M) for code in row.split(",")}
    assert codes == {int(code) for code in ExitCode}


def test_every_key_of_the_header_is_explained(folder: Path) -> None:
    for key in vars(read_run(folder / "checkpoints" / "play.npz")):
        assert f"`{key}`" in README, key


def test_python_examples(folder: Path) -> None:
    cells, api = re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S)
    source = (ROOT / "charrnn" / "cells" / "vanilla.py").read_text()
    for line in cells.splitlines():  # the recurrence is shown as it stands in its file
        if line.startswith(" "):
            assert line in source, line
    (folder / "example.py").write_text(api)
    out = shell(folder, f"{sys.executable} example.py")
    assert re.search(r"\d\.\d{3} nats per character; the oddest is '.'\n$", out)
