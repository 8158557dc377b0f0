"""What ships: the texts, and the example model."""

import dataclasses
import re
import shlex
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

import charrnn
from charrnn import checkpoint
from charrnn.cli import main
from charrnn.config import Config
from tests.conftest import ROOT

DATA = ROOT / "data"
EXAMPLE = ROOT / "checkpoints" / "example.npz"


@pytest.mark.parametrize(("name", "size"), [("play.txt", 60_000), ("algebra.tex", 30_000), ("kernel.c", 30_000)])
def test_texts_are_long_enough_and_do_not_repeat(name: str, size: int) -> None:
    data = (DATA / name).read_bytes()
    assert len(data) >= size
    text = data.decode("ascii")
    pieces = Counter(text[i : i + 150] for i in range(len(text) - 149))
    assert max(pieces.values()) == 1


def test_hello() -> None:
    assert (DATA / "hello.txt").read_bytes() == b"hello"


def test_the_algebra_is_well_formed() -> None:
    text = (DATA / "algebra.tex").read_text()
    open_environments: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+\*?)\}", text):
        if kind == "begin":
            open_environments.append(name)
        else:
            assert open_environments.pop() == name
    assert not open_environments
    assert text.count("{") == text.count("}")
    labels = re.findall(r"\\label\{([^}]+)\}", text)
    assert len(labels) == len(set(labels))
    assert set(re.findall(r"\\ref\{([^}]+)\}", text)) <= set(labels)
    assert text.count(r"\begin{tikzcd}") >= 2
    assert text.count(r"\begin{proof}") >= 20


@pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler")
def test_the_kernel_compiles(tmp_path: Path) -> None:
    flags = ["-std=c11", "-ffreestanding", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["cc", *flags, "-c", DATA / "kernel.c", "-o", tmp_path / "kernel.o"], check=True)


def test_the_example_writes_verse() -> None:
    assert EXAMPLE.stat().st_size < 500_000
    header, arrays = checkpoint.load(EXAMPLE)
    assert header["kind"] == "model"
    assert arrays.keys() == {"best_weights"}
    play = (DATA / "play.txt").read_text()
    model = charrnn.load(EXAMPLE)
    assert set(model.vocabulary.symbols) == set(play)
    words = set(re.findall(r"[a-z']+", play.lower()))
    drawn = re.findall(r"[a-z']+", "".join(model.sample(1500, temp=0.5, seed=0)).lower())
    assert sum(word in words for word in drawn) / len(drawn) > 0.8
    assert model.score(play[-3000:]).mean() < 2


def test_the_example_was_made_by_its_command() -> None:
    """The command in checkpoints/README.md has just the options that the example's header keeps."""
    readme = (ROOT / "checkpoints" / "README.md").read_text()
    (command,) = re.findall(r"^ +charrnn (train .*)", readme, re.M)
    context = main.make_context("charrnn", shlex.split(command), resilient_parsing=True)
    with main.commands["train"].make_context("train", shlex.split(command)[1:], parent=context) as train:
        options = {f.name: train.params[f.name] for f in dataclasses.fields(Config)}
    assert dataclasses.asdict(Config(**options)) == checkpoint.read_header(EXAMPLE)["config"]
