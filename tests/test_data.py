"""What ships: the texts, and the example model."""

import itertools
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

import charrnn
from charrnn import checkpoint
from tests.conftest import ROOT

DATA = ROOT / "data"
EXAMPLE = ROOT / "checkpoints" / "example.npz"


@pytest.mark.parametrize(("name", "size"), [("play.txt", 60_000), ("algebra.tex", 30_000), ("kernel.c", 30_000)])
def test_texts_are_long_enough_and_do_not_repeat(name: str, size: int) -> None:
    data = (DATA / name).read_bytes()
    assert len(data) >= size
    text = data.decode("ascii")
    pieces = Counter(text[i : i + 100] for i in range(len(text) - 99))
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
    assert arrays.keys() == {"best"}
    play = (DATA / "play.txt").read_text()
    model = charrnn.load(EXAMPLE)
    assert set(model.vocabulary.symbols) == set(play)
    words = set(re.findall(r"[a-z']+", play.lower()))
    drawn = re.findall(r"[a-z']+", "".join(model.sample(1500, temp=0.5, seed=0)).lower())
    assert sum(word in words for word in drawn) / len(drawn) > 0.8
    assert model.score(play[-3000:]).mean() < 2


def test_the_example_is_what_its_command_makes() -> None:
    """The command in checkpoints/README.md has the options that the example's header keeps."""
    config = checkpoint.read_header(EXAMPLE)["config"]
    command = (ROOT / "checkpoints" / "README.md").read_text()
    options = dict(itertools.pairwise(re.findall(r"\S+", re.findall(r"charrnn train (.*)", command)[0])))
    for name in ("cell", "hidden_size", "dropout", "batch_size", "max_steps", "seed", "learning_rate"):
        assert float(options[flag]) == config[name] if (flag := "--" + name.replace("_", "-")) in options else True
    assert options["--seed"] == str(config["seed"])
