"""``charrnn trace``: every number of a network, and the gradients that flow back."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charrnn
from charrnn.analysis.trace import trace
from charrnn.arrays import Array
from charrnn.config import CELLS
from charrnn.errors import UsageError
from charrnn.network import Network
from tests.conftest import ROOT, Cli
from tests.pages import Page

V, H, T = 5, 4, 6


def new_network(cell: str, num_layers: int) -> Network:
    return Network(cell, V, H, num_layers, np.float64, np.random.default_rng(1))


@pytest.mark.parametrize("cell", CELLS)
def test_gradient_of_every_state_is_that_of_the_losses_from_there_on(cell: str) -> None:
    network, ids = new_network(cell, 1), np.array([0, 3, 3, 1, 4, 2])
    result = trace(network, ids)

    def loss_from(t: int, state: Array) -> float:
        """Return the loss of step t and of those after it, as a function of the state at t."""
        total = 0.0
        for u in range(t, T - 1):
            if u > t:
                tape = network.new_tape(1, 1)
                state = network.forward(ids[None, u : u + 1], state[None, :, :, None], tape)[
                    0, :, :, 0
                ].copy()
            scores = network.params["Why"] @ state[0] + network.params["by"]
            total += float(np.log(np.exp(scores).sum()) - scores[ids[u + 1]])
        return total

    epsilon = 1e-5
    for t in range(T - 1):
        at = result.states[0, :, t]
        for i in np.ndindex(at.shape):
            step = np.zeros_like(at)
            step[i] = epsilon
            numeric = (loss_from(t, at + step) - loss_from(t, at - step)) / (2 * epsilon)
            assert result.dstates[(0, i[0], t, i[1])] == pytest.approx(numeric, abs=1e-7)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_trace_agrees_with_the_network(cell: str, num_layers: int) -> None:
    network, ids = new_network(cell, num_layers), np.array([0, 3, 3, 1, 4, 2])
    result = trace(network, ids)
    targets, tape = np.append(ids[1:], -1), network.new_tape(T, 1)
    nll, _ = network.loss_and_grad(
        ids[:, None], targets[:, None], network.zero_state(1), tape, scale=1
    )
    np.testing.assert_allclose(result.loss[:-1], nll[:-1, 0], rtol=1e-12)
    assert math.isnan(result.loss[-1])
    np.testing.assert_allclose(-np.log(result.p[np.arange(T - 1), ids[1:]]), nll[:-1, 0])
    grads = network.grads
    np.testing.assert_allclose(result.dy.sum(0), grads["by"], atol=1e-12)
    np.testing.assert_allclose(result.dy.T @ result.states[-1, 0], grads["Why"], atol=1e-12)
    for l in range(num_layers):
        np.testing.assert_allclose(result.da[l].sum(0), grads[f"{l}.bh"], atol=1e-12)
    for bad in (ids[:0], np.zeros(1001, int)):
        with pytest.raises(UsageError, match="a trace needs from 1 to 1,000 known symbols"):
            trace(network, bad)


@pytest.fixture
def hello(cli: Cli) -> charrnn.Model:
    args = ("--cell", "vanilla", "--hidden-size", "4", "--max-steps", "100", "-q")
    cli("train", ROOT / "data" / "hello.txt", *args)
    return charrnn.load("checkpoints/hello.npz")


def test_steps_are_printed_in_aligned_columns(cli: Cli, hello: charrnn.Model) -> None:
    out = cli("trace", "hello", "hell", "--backward").stdout.decode()
    steps = out.split("\n\n")[:-1]
    assert [step.splitlines()[0] for step in steps] == [
        f"step {n}: input {c!r}" for n, c in enumerate("hell", 1)
    ]
    assert re.search(r"\n +e +h +l +o\n  x +0 +1 +0 +0\n", steps[0])
    result = trace(hello.network, hello.vocabulary.encode("hell"))
    for t, step in enumerate(steps):
        for name, values in {
            "h": result.states[0, 0, t],
            "scores": result.scores[t],
            "p": result.p[t],
            "dy": result.dy[t],
            "dh": result.dstates[0, 0, t],
            "da": result.da[0, t],
        }.items():
            (row,) = re.findall(rf"^  {name} +(.*)$", step, re.M)
            assert row.split() == [f"{round(x, 3) + 0.0:.3f}" for x in values]
    assert f"  target 'e', p {result.p[0, 0]:.3f}, loss -ln p = {result.loss[0]:.3f}\n" in steps[0]
    assert "  no target; the most likely symbol is 'o'" in steps[3]
    assert max(map(len, out.splitlines())) <= 80
    assert cli("trace", "hell").stdout  # the newest model
    unknown = cli("trace", "hello", "hex", rc=5).stderr
    assert b"is not in the model's vocabulary of 4 symbols; leave it out of TEXT" in unknown


@pytest.mark.parametrize(("cell", "names"), [("vanilla", ["da"]), ("gru", "zrn"), ("lstm", "ifog")])
def test_gradients_of_every_gate_have_its_name(cli: Cli, cell: str, names: Sequence[str]) -> None:
    options = ("--cell", cell, "--num-layers", "2", "--hidden-size", "16", "--max-steps", "1", "-q")
    cli("train", ROOT / "data" / "hello.txt", *options)
    args = ("trace", "hello", "hel", "--backward")
    out = cli(*args).stdout.decode()
    rows = [json.loads(line) for line in cli(*args, "--json").stdout.splitlines()]
    blocks = ["da" if name == "da" else f"da {name}" for name in names]
    for layer in range(2):
        found = [
            re.findall(rf"^  {block} layer {layer} +(.*)\n.*\n +(.*)$", out, re.M)
            for block in blocks
        ]
        for t, row in enumerate(rows):
            shown = " ".join(" ".join(block[t]) for block in found).split()
            assert shown == [f"{round(x, 3) + 0.0:.3f}" for x in row["da"][layer]]
    assert "-0.000" not in out
    assert max(map(len, out.splitlines())) <= 80
    cli(*args, "--html", "hello.html")
    page = Path("hello.html").read_text(encoding="utf-8")
    assert page.count("".join(f"<th>{block}</th>" for block in blocks)) == 3 * 2


def test_json_has_every_number(cli: Cli, hello: charrnn.Model) -> None:
    lines = cli("trace", "hello", "hell", "--backward", "--json").stdout.splitlines()
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    result = trace(hello.network, hello.vocabulary.encode("hell"))
    assert [row["input"] for row in rows] == list("hell")
    assert [row["target"] for row in rows] == ["e", "l", "l", None]
    assert [row["loss"] for row in rows] == [*result.loss[:-1], None]
    assert rows[0]["symbols"] == list("ehlo")
    assert [row["x"] for row in rows[:2]] == [[0, 1, 0, 0], [1, 0, 0, 0]]
    for name, values in {"h": result.states[0, 0], "dh": result.dstates[0, 0]}.items():
        assert [row[name][0] for row in rows] == values.tolist()
    assert [row["da"][0] for row in rows] == result.da[0].tolist()
    assert [row["dy"] for row in rows] == result.dy.tolist()
    both = ("--json", "--html", "hello.html")
    assert b"mutually exclusive" in cli("trace", "hello", "hell", *both, rc=2).stderr


def test_diagram_shows_the_target_in_every_step(cli: Cli, hello: charrnn.Model) -> None:
    cli("trace", "hello", "hell", "--html", "hello.html")
    page = Path("hello.html").read_text(encoding="utf-8")
    result = trace(hello.network, hello.vocabulary.encode("hell"))
    assert page.count('<section class="step">') == 4
    marked = re.findall(r'<tr class="target"><th>(.)</th><td>([-\d.]+)</td>', page)
    scores = [result.scores[t, i] for t, i in enumerate(result.targets[:-1])]
    assert marked == [(c, f"{x:.2f}") for c, x in zip("ell", scores, strict=True)]
    assert Page(page).texts["h1"] == ["hell in hello.npz"]
    assert (
        b"already exists; use --force"
        in cli("trace", "hello", "hell", "--html", "hello.html", rc=2).stderr
    )


def test_large_model_shows_its_largest_numbers(cli: Cli) -> None:
    out = cli("trace", "The ").stdout.decode()
    assert re.search(r"^  h +(\d+ -?\d\.\d{3}  ){5}\.\.\.$", out, re.M)
    assert max(map(len, out.splitlines())) <= 80
    cli("trace", "The ", "--backward", "--html", "large.html")
    assert len(Path("large.html").read_text(encoding="utf-8")) < 30_000
