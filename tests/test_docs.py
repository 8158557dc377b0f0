"""The documents: their examples run, and they explain every command, option and exit code."""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from PIL import Image, ImageDraw

from charrnn.blas import BLAS_VARIABLES
from charrnn.cli import main
from charrnn.errors import ExitCode
from charrnn.storage.checkpoint import ARRAYS, read_state
from tests.conftest import ROOT, invoke

README, DOCS = ROOT / "README.md", sorted((ROOT / "docs").glob("*.md"))
INSTALLATION = 2  # blocks of the README that install charrnn and run the tests
EXAMPLE_BYTES = 20_000  # of corpus.txt, draft.txt and kernel.c
HIDDEN_SIZE = "16"  # instead of the examples' own
SHORT_TRAINING = {"CHARRNN_TRAIN_MAX_STEPS": "10", "CHARRNN_TRAIN_HIDDEN_SIZE": HIDDEN_SIZE}


# of click, and of the launchers and installers that docs/cluster.md mentions
OTHER_OPTIONS = {"--help", "--mpi", "--allow-run-as-root", "--bind-to", "--no-binary"}


class Block(NamedTuple):
    """A fenced block of a document, and the output that is shown below it."""

    language: str
    code: str
    output: str


@functools.cache
def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[Block]:
    pattern = r"^```(\w+)\n(.*?)^```\n(?:\n```\n(.*?)^```\n)?"
    found = map(Block._make, re.findall(pattern, read(page), re.M | re.S))
    first = INSTALLATION if (page, language) == (README, "sh") else 0
    return [block for block in found if block.language == language][first:]


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", read(page), flags=re.M | re.S)


def code_spans(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))


def first_cells(page: Path) -> str:
    """Return the first column of all tables of a page."""
    return " ".join(re.findall(r"^\| ([^|]*) \|", read(page), re.M))


def each_page(*pages: Path) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "page", pages, ids=lambda page: f"{page.parent.name}-{page.stem}"
    )


each_command = pytest.mark.parametrize("name", sorted(main.commands))


# --- The examples run. ---


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the examples mention, and a run in it."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "data", folder / "data")
    for name in ("checkpoints", "src"):
        (folder / name).mkdir()
    shutil.copy(ROOT / "checkpoints" / "example.npz", folder / "checkpoints")
    play, kernel = (
        (ROOT / "data" / name).read_bytes()[:EXAMPLE_BYTES] for name in ("play.txt", "kernel.c")
    )
    files = {"corpus.txt": play, "draft.txt": play, "kernel.c": kernel, "src/kernel.c": kernel}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        shell("charrnn train data/play.txt")
        draw_pictures(folder / "pictures")
        code = "".join(block.code for block in blocks(ROOT / "docs" / "captions.md", "python"))
        exec(compile(code, "captions.md", "exec"), {})
    return folder


def draw_pictures(folder: Path) -> None:
    """Draw what docs/captions.md reads: the file's name says what is in the picture."""
    folder.mkdir()
    for color in ("red", "green", "blue"):
        for size in range(4, 16):
            picture = Image.new("RGB", (24, 24), "white")
            ImageDraw.Draw(picture).rectangle((4, 4, 4 + size, 4 + size), color)
            picture.save(folder / f"a {color} square of {size}.png")


@pytest.fixture
def folder(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a copy of the template."""
    enter(Path(shutil.copytree(template, tmp_path / "docs")), monkeypatch)


def enter(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Work in a folder, with the environment of the examples."""
    for name in os.environ:
        if name.startswith("CHARRNN_"):
            patch.delenv(name)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**SHORT_TRAINING, "PYTHONPATH": str(ROOT), "PATH": path}
    for name, value in environment.items():
        patch.setenv(name, value)
    patch.chdir(folder)


def shell(script: str) -> str:
    """Run a script, with short trainings of small models; return its standard output."""
    script = re.sub(r"--hidden-size \d{3,}", f"--hidden-size {HIDDEN_SIZE}", script)
    output = ""
    for line in script.replace("\\\n", "").splitlines():
        if re.fullmatch(r"charrnn [^|>&$*]*", line):  # this needs no shell
            output += invoke(shlex.split(line)[1:]).stdout.decode()
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        output += done.stdout
    return output


def stable(output: str) -> str:
    """Return output without line breaks, and without figures that differ between machines."""
    return " ".join(re.sub(r"[\d,]+ per second", "", output).split())


@each_page(README, *DOCS)
@pytest.mark.usefixtures("folder")
def test_shell_examples_of_a_page_run(page: Path) -> None:
    for block in blocks(page, "sh"):
        output = shell(block.code)
        if block.output:
            assert stable(output) == stable(block.output)
        elif re.search(r"^charrnn (sample|eval|score|show|info) [^>\n]+$", block.code, re.M):
            assert output


@each_command
@pytest.mark.usefixtures("folder")
def test_examples_of_a_help_text_run(name: str) -> None:
    examples = re.findall(r"^  +((?:.* \| )?charrnn .*)$", main.commands[name].help or "", re.M)
    assert examples
    in_documents = [block.code for page in [README, *DOCS] for block in blocks(page, "sh")]
    for example in examples:
        if not any(example in code for code in in_documents):  # those run above
            shell(example)


@each_page(*(page for page in DOCS if blocks(page, "python")))
@pytest.mark.usefixtures("folder")
def test_python_examples_of_a_page_run(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for block in blocks(page, "python"):
        first_line, _, code = block.code.partition("\n")
        if first_line.startswith("# charrnn/"):  # an excerpt of this file
            source = (ROOT / first_line.removeprefix("# ")).read_text(encoding="utf-8")
            for excerpt in code.split("...\n"):
                assert excerpt in source
        else:
            exec(compile(block.code, page.name, "exec"), names)
            out = capsys.readouterr().out
            assert out
            assert block.output in ("", out)


# --- Everything is explained. ---


@each_command
def test_a_page_explains_every_option_of_a_command(name: str) -> None:
    options = [p for p in main.commands[name].params if isinstance(p, click.Option)]
    assert all(option.help for option in options)
    flags = [flag for option in options for flag in option.opts]
    missing = [
        [flag for flag in flags if not re.search(rf"`([^`]* )?{flag}( [^`]*)?`", read(page))]
        for page in DOCS
        if f"charrnn {name}" in read(page)
    ]
    assert [] in missing, min(missing, key=len, default="no page")
    assert f"`charrnn {name}`" in read(README)


@each_page(README, *DOCS)
def test_a_page_mentions_no_unknown_command_or_option(page: Path) -> None:
    commands = main.commands.values()
    parameters = [parameter for c in [main, *commands] for parameter in c.params]
    flags = {flag for p in parameters for flag in (*p.opts, *p.secondary_opts)}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", prose(page))) <= flags | OTHER_OPTIONS
    parent = click.Context(main, **main.context_settings)  # click keeps its -h in each command
    for span in code_spans(page):
        if found := re.fullmatch(r"(?:.* \| )?charrnn ([a-z]+)( [^|]*)?", span):
            arguments = shlex.split(found[2] or "")
            main.commands[found[1]].make_context(
                found[1], arguments, parent=parent, resilient_parsing=True
            )


def test_every_exit_code_is_explained() -> None:
    codes = re.findall(r"\b\d+\b", first_cells(ROOT / "docs" / "command-line.md"))
    assert sorted(map(int, codes)) == sorted(ExitCode)


def test_every_environment_variable_is_explained() -> None:
    used = {*BLAS_VARIABLES, "COLUMNS", "CHARRNN_COMMAND_OPTION"}
    for module in (ROOT / "charrnn").rglob("*.py"):
        used |= set(re.findall(r'environ(?:\.get\(|\[)"(\w+)"', read(module)))
    assert set(re.findall("[A-Z_]{4,}", first_cells(ROOT / "docs" / "command-line.md"))) == used


def keys(value: Any) -> Iterator[str]:
    """Yield the keys of nested JSON, without the options of train in ``config``."""
    for item in value if isinstance(value, list) else []:
        yield from keys(item)
    for key, inner in value.items() if isinstance(value, dict) else []:
        yield key
        if key not in ("config", "arrays", "copied_fraction"):
            yield from keys(inner)


def test_every_key_and_array_of_a_checkpoint_is_explained(template: Path) -> None:
    header = vars(read_state(template / "checkpoints" / "play.npz"))
    page = read(ROOT / "docs" / "checkpoint-format.md")
    for key in {*keys(header), *ARRAYS["run"]}:
        assert f"`{key}`" in page or re.fullmatch("[2-7]-gram", key), key


@pytest.mark.parametrize(
    ("command", "page"),
    [
        ("eval checkpoints/example.npz draft.txt --json", "evaluating.md"),
        ("score checkpoints/example.npz draft.txt --json --per file", "evaluating.md"),
        ("overlap draft.txt --sample draft.txt --json", "memorization.md"),
    ],
)
def test_every_key_of_json_output_is_explained(
    template: Path, monkeypatch: pytest.MonkeyPatch, command: str, page: str
) -> None:
    monkeypatch.chdir(template)
    for key in keys(json.loads(invoke(command.split()).stdout)):
        assert f"`{key}`" in read(ROOT / "docs" / page), key


# --- Form. ---


def test_the_readme_is_a_front_page() -> None:
    assert len(read(README).splitlines()) <= 150
    assert len(read(README).split()) <= 1200


def anchors(page: Path) -> list[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", read(page), re.M)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


@each_page(*ROOT.glob("*.md"), *ROOT.glob("[!.]*/*.md"))
def test_links_and_paths_of_a_page_exist(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", prose(page)):
        path, _, fragment = link.partition("#")
        target = page.parent / path if path else page
        assert path.startswith("https://") or target.exists(), link
        assert not fragment or fragment in anchors(target), link
    for span in code_spans(page):
        if re.fullmatch(r"(charrnn|tests|bench|docs|data)/[\w./:]+", span) and "NAME" not in span:
            path, _, test = span.partition("::")
            assert (ROOT / path).exists(), span
            assert not test or f"def {test}(" in read(ROOT / path), span
