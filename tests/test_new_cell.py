"""A cell that only the registry knows works in every command."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.conftest import ENV

REGISTER = """
from charrnn.config import CELLS
CELLS["toy"] = "tests.toy_cell:Toy"
from charrnn.cli import main
main(prog_name="charrnn")
"""


def test_registered_cell_works_in_every_command(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.txt").write_text(text)

    def charrnn(*args: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", REGISTER, *args],
            cwd=tmp_path,
            env=ENV,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    # train, resume: the same weights as without a stop
    options = [
        "--cell",
        "toy",
        "--num-layers",
        "2",
        "--hidden-size",
        "8",
        "--max-steps",
        "20",
        "--dtype",
        "float64",
    ]
    charrnn("train", "t.txt", *options, "-o", "whole.npz")
    charrnn("train", "t.txt", *options, "-o", "toy.npz", "--stop-after", "7")
    charrnn("train", "t.txt", "--resume", "-o", "toy.npz")
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "toy.npz") as resumed:
        for name in ("best_weights", "last_weights", "optimizer_state", "hidden_state"):
            assert (whole[name] == resumed[name]).all()

    assert "toy" in charrnn("train", "--help")
    assert len(charrnn("sample", "toy.npz", "--length", "50", "--seed", "1")) == 50
    assert "0.Whh\t" in charrnn("gradcheck", "toy.npz", "t.txt")
    assert charrnn("gradflow", "--cell", "toy", "--lags", "5", "t.txt").startswith("lag\ttoy\n")
    assert "toy 2x8" in charrnn("info", "toy.npz")
    assert charrnn("show", "toy.npz", "t.txt", "--neuron", "1:3", "--color", "never")
    assert "toy" in charrnn("report", "toy.npz", "-o", "-")
