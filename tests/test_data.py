"""The texts and the example model that are part of the project."""

import dataclasses
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

import charrnn
from charrnn.cli import main
from charrnn.config import Config
from charrnn.storage import checkpoint
from tests.conftest import ROOT

DATA = ROOT / "data"
EXAMPLE = ROOT / "checkpoints" / "example.npz"


def test_texts_are_long_and_do_not_repeat() -> None:
    for name, size in {"play.txt": 60_000, "algebra.tex": 30_000, "kernel.c": 30_000}.items():
        text = (DATA / name).read_bytes().decode("ascii")
        assert len(text) >= size
        assert len({text[i : i + 150] for i in range(len(text) - 149)}) == len(text) - 149


def test_algebra_is_well_formed() -> None:
    text = (DATA / "algebra.tex").read_text()
    environments = " ".join(re.findall(r"\\(?:begin|end)\{\w+\*?\}", text))
    while environments != (rest := re.sub(r"\\begin(\{\S+\}) *\\end\1 *", "", environments)):
        environments = rest
    assert not environments
    assert text.count("{") == text.count("}")
    labels = re.findall(r"\\label\{([^}]+)\}", text)
    assert len(labels) == len(set(labels))
    assert set(re.findall(r"\\ref\{([^}]+)\}", text)) <= set(labels)
    assert text.count(r"\begin{tikzcd}") >= 2
    assert text.count(r"\begin{proof}") >= 20


@pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler")
def test_kernel_compiles(tmp_path: Path) -> None:
    flags = ["-std=c11", "-ffreestanding", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["cc", *flags, "-c", DATA / "kernel.c", "-o", tmp_path / "kernel.o"], check=True)


def test_example_predicts_and_generates_the_play() -> None:
    assert EXAMPLE.stat().st_size < 600_000
    state, arrays = checkpoint.read_checkpoint(EXAMPLE)
    assert state.kind == "model"
    assert arrays.keys() == {"best_weights", "counts"}
    play = (DATA / "play.txt").read_text()
    model = charrnn.load(EXAMPLE)
    assert set(model.vocabulary.symbols) == set(play)
    words = set(re.findall(r"[a-z']+", play.lower()))
    sample = "".join(model.sample(1500, temp=0.5, seed=0))
    sampled = re.findall(r"[a-z']+", sample.lower())
    assert sum(word in words for word in sampled) / len(sampled) > 0.8
    assert model.nll(play[-3000:]).mean() < 2


def test_example_was_trained_with_the_documented_command() -> None:
    readme = (ROOT / "checkpoints" / "README.md").read_text()
    (command,) = re.findall(r"^ +charrnn (train .*)", readme, re.M)
    context = main.make_context("charrnn", shlex.split(command), resilient_parsing=True)
    arguments = shlex.split(command)[1:]
    with main.commands["train"].make_context("train", arguments, parent=context) as train:
        options = {f.name: train.params[f.name] for f in dataclasses.fields(Config)}
    assert Config(**options) == checkpoint.read_state(EXAMPLE).config
