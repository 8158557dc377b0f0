"""A cell that only the registry knows works in every command."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.conftest import ENV

REGISTER_AND_RUN = """
import sys
from charrnn.config import CELLS
CELLS["toy"] = "tests.toy_cell:Toy"
from tests.conftest import invoke
print(*(invoke(command.split()).stdout.decode() for command in sys.argv[1:]), sep="\\0")
"""
OPTIONS = "--cell toy --num-layers 2 --hidden-size 8 --max-steps 20 --dtype float64"


def test_registered_cell_works_in_every_command(corpus: Path, tmp_path: Path) -> None:
    commands = [
        f"train corpus.txt {OPTIONS} -o whole.npz",
        f"train corpus.txt {OPTIONS} -o toy.npz --stop-after 7",
        "train corpus.txt --resume -o toy.npz",
        "train --help",
        "sample toy.npz --length 50 --seed 1",
        "gradcheck toy.npz corpus.txt",
        "gradflow --cell toy --lags 5 corpus.txt",
        "info toy.npz",
        "show toy.npz corpus.txt --neuron 1:3",
        "report toy.npz -o -",
    ]
    script = [sys.executable, "-c", REGISTER_AND_RUN, *commands]
    done = subprocess.run(script, cwd=tmp_path, env=ENV, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    _, _, _, text, sample, check, flow, info, shown, page = done.stdout.decode().split("\0")
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "toy.npz") as resumed:
        for name in ("best_weights", "last_weights", "optimizer_state", "hidden_state"):
            assert (whole[name] == resumed[name]).all()
    assert "toy" in text
    assert len(sample) == 50
    assert "0.Whh\t" in check
    assert flow.startswith("lag\ttoy\n")
    assert "toy 2x8" in info
    assert shown
    assert "toy" in page
