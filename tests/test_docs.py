"""The documents are true: every example runs, and everything that a user can type is explained."""

from __future__ import annotations

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

from charrnn.checkpoint import ARRAYS, read_header
from charrnn.cli import main
from charrnn.cli.common import BLAS_VARIABLES
from charrnn.errors import Exit
from tests.conftest import ROOT, invoke

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
# the first two blocks of the README install charrnn and run the tests
INSTALLATION = 2
EXAMPLE_SIZE = 20_000  # characters of corpus.txt, draft.txt and kernel.c
HIDDEN_SIZE = "16"  # in place of the examples' own
SHORT_TRAINING = {"CHARRNN_TRAIN_MAX_STEPS": "10", "CHARRNN_TRAIN_HIDDEN_SIZE": HIDDEN_SIZE}


class Block(NamedTuple):
    """A fenced block of a document, and the output shown below it."""

    language: str
    code: str
    output: str


def blocks(page: Path, language: str) -> list[Block]:
    pattern = r"^```(\w+)\n(.*?)^```\n(?:\n```\n(.*?)^```\n)?"
    found = re.findall(pattern, page.read_text(encoding="utf-8"), re.M | re.S)
    return [block for block in map(Block._make, found) if block.language == language]


def shell_blocks(page: Path) -> list[Block]:
    return blocks(page, "sh")[INSTALLATION if page == README else 0 :]


def examples_of_help(command: click.Command) -> list[str]:
    return re.findall(r"^  +((?:.* \| )?charrnn .*)$", command.help or "", re.M)


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def code_spans(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))


def parametrize_pages(pages: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.name)


# --- The examples run. ---


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the examples mention, and a run in it."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "data", folder / "data")
    for name, source in (("corpus.txt", "play.txt"), ("draft.txt", "play.txt"), ("kernel.c", "kernel.c")):
        text = (ROOT / "data" / source).read_bytes()[:EXAMPLE_SIZE]
        (folder / name).write_bytes(text)
    (folder / "src").mkdir()
    shutil.copy(folder / "kernel.c", folder / "src")
    (folder / "checkpoints").mkdir()
    shutil.copy(ROOT / "checkpoints" / "example.npz", folder / "checkpoints")
    shell(folder, "charrnn train data/play.txt")
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    """A copy of the template."""
    return Path(shutil.copytree(template, tmp_path / "docs"))


def shell(folder: Path, script: str) -> str:
    """Run a script, with short trainings of small models; return its standard output."""
    script = re.sub(r"--hidden-size \d+", f"--hidden-size {HIDDEN_SIZE}", script)
    env = {name: value for name, value in os.environ.items() if not name.startswith("CHARRNN_")}
    path = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**env, **SHORT_TRAINING, "PYTHONPATH": str(ROOT), "PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode in (0, 128 + 13), f"{script}\n{done.stderr}"  # head closes its pipe
    assert "Traceback" not in done.stderr
    return done.stdout


def words(text: str) -> str:
    """Return a text without what differs between machines, and without line breaks."""
    return " ".join(re.sub(r"[\d,]+ per second", "N per second", text).split())


@parametrize_pages([README, *DOCS])
def test_shell_examples_of_a_page_run(folder: Path, page: Path) -> None:
    for block in shell_blocks(page):
        output = shell(folder, block.code)
        if block.output:
            assert words(output) == words(block.output)
        elif re.search(r"^charrnn (sample|eval|score|show|overlap|info) [^>\n]+$", block.code, re.M):
            assert output


@pytest.mark.parametrize("name", sorted(main.commands))
def test_examples_of_a_help_text_run(folder: Path, name: str) -> None:
    lines = examples_of_help(main.commands[name])
    assert lines
    documented = "".join(block.code for page in [README, *DOCS] for block in shell_blocks(page))
    for line in lines:
        if line not in documented:  # otherwise it has been run
            shell(folder, line)
            (folder / "checkpoints" / "corpus.npz").unlink(missing_ok=True)


@parametrize_pages([page for page in DOCS if blocks(page, "python")])
def test_python_examples_of_a_page_run(
    folder: Path, page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    for block in blocks(page, "python"):
        name, *rest = block.code.split("\n")
        if name.startswith("# charrnn/"):
            source = (ROOT / name.removeprefix("# ")).read_text(encoding="utf-8")
            for excerpt in "\n".join(rest).split("...\n"):
                assert excerpt in source
        else:
            exec(compile(block.code, str(page), "exec"), {})
            assert capsys.readouterr().out


# --- Everything is explained. ---


@pytest.mark.parametrize("name", sorted(main.commands))
def test_some_page_explains_every_option_of_a_command(name: str) -> None:
    options = [p for p in main.commands[name].params if isinstance(p, click.Option)]
    assert all(option.help for option in options)
    pages = [text for page in DOCS if f"charrnn {name}" in (text := page.read_text(encoding="utf-8"))]
    flags = [flag for option in options for flag in option.opts]
    missing = [
        [flag for flag in flags if not re.search(rf"`([^`]* )?{flag}( [^`]*)?`", text)]
        for text in pages
    ]
    assert [] in missing, min(missing, key=len)
    assert f"`charrnn {name}`" in README.read_text(encoding="utf-8")


def test_documents_mention_no_unknown_command_or_option() -> None:
    flags = {
        flag
        for command in [main, *main.commands.values()]
        for parameter in command.params
        for flag in parameter.opts
    } | {"--help"}
    for page in [README, *DOCS]:
        unknown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", prose(page))) - flags
        assert not unknown, page.name
        for span in code_spans(page):
            match span.removeprefix("$ ").partition(" | charrnn")[0].split(" "):
                case ["charrnn", name, *_] if name.islower() and name.isalpha():
                    command = main.commands[name]
                    command.make_context(name, shlex.split(span)[2:], resilient_parsing=True)


def table_of_codes(page: Path, pattern: str) -> list[str]:
    """Return the code spans of the first column of the page's tables that match a pattern."""
    cells = re.findall(r"^\| ([^|]*) \|", page.read_text(encoding="utf-8"), re.M)
    return [span for cell in cells for span in re.findall(r"[^`,\s]+", cell) if re.fullmatch(pattern, span)]


def test_every_exit_code_is_explained() -> None:
    codes = table_of_codes(ROOT / "docs" / "command-line.md", r"\d+")
    assert sorted(map(int, codes)) == sorted(Exit)


def test_every_environment_variable_is_explained() -> None:
    used = set(BLAS_VARIABLES)
    for module in (ROOT / "charrnn").rglob("*.py"):
        used |= set(re.findall(r'environ(?:\.get\(|\[)"(\w+)"', module.read_text(encoding="utf-8")))
    explained = table_of_codes(ROOT / "docs" / "command-line.md", "[A-Z_]+")
    assert set(explained) == used | {"CHARRNN_COMMAND_OPTION", "COLUMNS"}


def keys(value: Any) -> Iterator[str]:
    """Yield the keys of nested JSON; those of ``config`` are the options of train."""
    for item in value if isinstance(value, list) else []:
        yield from keys(item)
    for key, inner in value.items() if isinstance(value, dict) else []:
        yield key
        if key not in ("config", "arrays"):
            yield from keys(inner)


def test_every_key_of_the_header_is_explained(template: Path) -> None:
    page = (ROOT / "docs" / "checkpoint-format.md").read_text(encoding="utf-8")
    header = read_header(template / "checkpoints" / "play.npz")
    ngrams = {f"{n}-gram" for n in range(2, 6)}  # between the first and the last
    for key in {*keys(header), *ARRAYS["run"]} - ngrams:
        assert f"`{key}`" in page, key


@pytest.mark.parametrize(
    ("page", "command"),
    [
        ("evaluating.md", "eval checkpoints/example.npz draft.txt --json"),
        ("evaluating.md", "score checkpoints/example.npz draft.txt --json"),
        ("memorization.md", "overlap checkpoints/example.npz draft.txt --sample draft.txt --json"),
    ],
)
def test_every_key_of_json_output_is_explained(
    template: Path, monkeypatch: pytest.MonkeyPatch, page: str, command: str
) -> None:
    monkeypatch.chdir(template)
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    output = invoke(command.split()).stdout.decode()
    value = json.loads(output if "overlap" in command else output.partition("\n")[0])
    for key in keys(value):
        assert f"`{key}`" in text or key in ("20", "40", "80"), key


# --- Form. ---


def test_the_readme_is_a_front_page() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1200


def anchor(heading: str) -> str:
    """Return the anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@parametrize_pages(sorted([*ROOT.glob("*.md"), *ROOT.glob("[!.]*/*.md")]))
def test_internal_links_and_paths_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
        path, _, fragment = target.partition("#")
        if path.startswith("http"):
            continue
        other = page.parent / path if path else page
        assert other.exists(), target
        if fragment:
            headings = re.findall(r"^#+ (.*)$", other.read_text(encoding="utf-8"), re.M)
            assert fragment in map(anchor, headings), target
    for span in code_spans(page):
        if re.fullmatch(r"(charrnn|tests|bench|docs|data)/[\w./]+", span) and "NAME" not in span:
            assert (ROOT / span).exists(), span
