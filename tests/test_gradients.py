"""Gradient flow and the gradient check, against central differences and planted faults."""

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charrnn import loss
from charrnn.analysis import gradients
from charrnn.arrays import Array, Ids
from charrnn.cells import load_cell
from charrnn.config import CELLS
from charrnn.errors import TextError
from charrnn.network import Network
from charrnn.text import units
from charrnn.text.corpus import Corpus
from charrnn.text.vocabulary import Vocabulary
from tests.conftest import Cli, numeric, random_network

T, B, V, H = 6, 3, 7, 4


@pytest.mark.parametrize("cell", sorted(CELLS))
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_state_gradient_norms_match_central_differences(cell: str, num_layers: int) -> None:
    """Naively: change a state after its step; the layers above and all later steps read it."""
    rng, network = np.random.default_rng(0), random_network(cell, num_layers)
    xs, ys = rng.integers(0, V, (T, B)), rng.integers(0, V, B)
    state = rng.standard_normal(network.zero_state(B).shape)
    tape = network.new_tape(T, B)
    norms = gradients.state_gradient_norms(network, xs, ys, state, tape)
    assert norms.shape == (T, num_layers, len(network.cell.STATE_NAMES), B)

    nudge = np.zeros(state.shape[1:])  # of one layer's states, after one step

    def last_loss(layer: int, step: int) -> float:
        states, logits = [s.copy() for s in state], np.empty((V, B))
        for t in range(T):
            x = network.params["0.Wxh"][:, xs[t]]
            for l in range(num_layers):
                if l:
                    x = network.params[f"{l}.Wxh"] @ x
                ax = (x + network.params[f"{l}.bh"][:, None])[None]
                one = network.cell.new_tape(1, H, B, np.float64)
                states[l] = network.cell.forward(network.params[f"{l}.Whh"], ax, states[l], one)[
                    1
                ].copy()
                if (l, t) == (layer, step):
                    states[l] += nudge
                x = states[l][0]
            logits = network.params["Why"] @ x + network.params["by"][:, None]
        return float(loss.forward(logits, ys)[0].sum())

    for layer, k in itertools.product(range(num_layers), (0, 1, 2, T - 1)):
        wanted = np.linalg.norm(numeric(partial(last_loss, layer, T - 1 - k), nudge), axis=1)
        np.testing.assert_allclose(norms[k, layer], wanted, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("w", [0.5, 0.9, 1.1])
def test_vanilla_gradient_changes_by_the_scale_of_its_matrix(w: float) -> None:
    network = Network("vanilla", V, 32, 1, np.float64, np.random.default_rng(0))
    network.params["0.Whh"][:] *= w  # it was orthogonal
    network.params["0.Wxh"][:] *= 1e-15  # h stays small, through 200 steps that may grow
    ids = np.random.default_rng(1).integers(0, V, 3000)
    norms = gradients.gradient_flow(network, ids, ids[:1], 20)[:, 0, 0]
    slopes = np.diff(np.log(norms))
    np.testing.assert_allclose(slopes, np.log(w), rtol=0.02)


def test_open_forget_gate_keeps_the_gradient_of_c() -> None:
    network = Network("lstm", V, 16, 1, np.float64, np.random.default_rng(0))
    ids = np.random.default_rng(1).integers(0, V, 3000)
    network.params["0.Whh"][:] = 0
    network.params["0.bh"].reshape(4, -1)[1] = 50
    norms = gradients.gradient_flow(network, ids, ids[:1], 100)[1:, 0, 1]
    np.testing.assert_allclose(norms, norms[0], rtol=1e-12)
    # half open: half of it remains
    network.params["0.bh"].reshape(4, -1)[1] = 0
    network.params["0.Wxh"].reshape(4, -1, V)[1] = 0
    norms = gradients.gradient_flow(network, ids, ids[:1], 100)[1:, 0, 1]
    np.testing.assert_allclose(norms[1:] / norms[:-1], 0.5, rtol=1e-12)


def norms_at(network: Network, before: Ids, xs: Ids, y: Ids) -> Array:
    """Return the norms (T, L, S) of one position: symbols to warm up, inputs and the target."""
    state = network.zero_state(1)
    if len(before):
        state = network.forward(before[:, None], state, network.new_tape(len(before), 1)).copy()
    tape = network.new_tape(len(xs), 1)
    return gradients.state_gradient_norms(network, xs[:, None], y, state, tape)[..., 0]


def test_flow_is_the_geometric_mean_over_warmed_up_positions() -> None:
    network = random_network("gru", 2)
    ids = np.random.default_rng(1).integers(0, V, 1000)
    norms = []
    # to 999, the last symbol, which is the last target
    for at in np.linspace(206, 999, 64).astype(int):
        norms.append(norms_at(network, ids[at - 206 : at - 6], ids[at - 6 : at], ids[at, None]))
    got = gradients.gradient_flow(network, ids, ids[:1], 5)
    np.testing.assert_allclose(got, np.exp(np.log(norms).mean(0)), rtol=1e-10)


def test_flow_starts_at_documents() -> None:
    network = random_network("lstm", 1)
    ids, start = np.random.default_rng(1).integers(0, V, 30), np.array([2])
    ends = np.array([3, 8, 14, 30])
    got = gradients.gradient_flow(network, ids, start, 4, ends)
    norms = []
    for at in (3, 8, 14):  # the first document is shorter than 5
        xs = np.array([2, *ids[at : at + 4]])
        norms.append(norms_at(network, ids[:0], xs, ids[at + 4, None]))
    assert got[0, 0, 1] == 0  # of the last c, with the last h constant
    np.testing.assert_allclose(got, np.prod(norms, axis=0) ** (1 / 3), rtol=1e-10)
    with pytest.raises(TextError, match="use --lags 15 or fewer"):
        gradients.gradient_flow(network, ids, start, 16, ends)
    assert gradients.gradient_flow(network, ids, start, 15, ends).shape == (16, 1, 2)


def test_flow_of_a_short_text_names_the_largest_lag() -> None:
    network, ids = random_network("gru", 1), np.random.default_rng(1).integers(0, V, 10)
    assert (gradients.gradient_flow(network, ids, ids[:1], 8) > 0).all()
    with pytest.raises(TextError, match="use --lags 8 or fewer"):
        gradients.gradient_flow(network, ids, ids[:1], 9)
    for ends in (None, np.zeros(0, int)):
        with pytest.raises(TextError, match="at least three characters"):
            gradients.gradient_flow(network, ids[:0], ids[:1], 1, ends)


def checked(network: Network) -> dict[str, float]:
    rng = np.random.default_rng(0)
    xs, ys = rng.integers(0, V, (2, T, B))
    state = rng.standard_normal(network.zero_state(B).shape)
    return {
        name: error for name, _, error in gradients.check_gradients(network, xs, ys, state, rng)
    }


@pytest.mark.parametrize("cell", sorted(CELLS))
def test_correct_gradients_pass(cell: str) -> None:
    network = random_network(cell, 2)
    before = network.params.vector.copy()
    errors = checked(network)
    assert list(errors) == list(network.params)
    assert max(errors.values()) < gradients.TOLERANCE / 5
    assert (network.params.vector == before).all()


def test_rounding_of_a_tiny_gradient_is_not_an_error() -> None:
    network = random_network("gru", 1)
    network.params["Why"][:] *= 1e-8
    assert max(checked(network).values()) < gradients.TOLERANCE / 5


FAULTS: dict[str, tuple[Callable[[Array, Array], object], set[str]]] = {
    "factor for Whh": (lambda dWhh, dax: np.multiply(dWhh, 1.01, out=dWhh), {"0.Whh"}),
    "factor for ax": (lambda dWhh, dax: np.multiply(dax, 1.01, out=dax), {"0.Wxh", "0.bh"}),
    "no gradient of the last step": (lambda dWhh, dax: dax[-1].fill(0), {"0.Wxh", "0.bh"}),
    "nan": (lambda dWhh, dax: dWhh[0].fill(np.nan), {"0.Whh"}),
    "half of it zero": (lambda dWhh, dax: dWhh[: len(dWhh) // 2].fill(0), {"0.Whh"}),
}


def plant(monkeypatch: pytest.MonkeyPatch, cell: str, fault: str) -> set[str]:
    """Make the gradients of a cell wrong; return the names of the parameters concerned."""
    correct = load_cell(cell).backward
    spoil, names = FAULTS[fault]

    def backward(Whh: Array, dWhh: Array, *args: Any) -> tuple[Array, Array]:
        dax, dstate = correct(Whh, dWhh, *args)
        spoil(dWhh, dax)
        return dax, dstate

    monkeypatch.setattr(load_cell(cell), "backward", backward)
    return names


@pytest.mark.parametrize("cell", sorted(CELLS))
@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_gradient_is_found(cell: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = plant(monkeypatch, cell, fault)
    errors = checked(random_network(cell, 1))
    assert {name for name, error in errors.items() if not error <= gradients.TOLERANCE} == names


def test_half_of_the_entries_have_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    network, xs = Network("gru", 5000, 3, 1, np.float64, rng), np.array([[17], [4000]])
    network.params["0.Wxh"][:, [17, 4000]] = 0.5
    changed: list[int] = []
    forward = Network.forward

    def spy(self: Network, *args: Any, **options: Any) -> Array:
        changed.append((self.params["0.Wxh"][:, [17, 4000]] != 0.5).sum())
        return forward(self, *args, **options)

    monkeypatch.setattr(Network, "forward", spy)
    checks = list(gradients.check_gradients(network, xs, xs, network.zero_state(1), rng, 20))
    assert checks[0][1] == 20
    assert sum(changed) >= 20  # ten entries, up and down


def test_unknown_symbols_are_skipped_and_counted() -> None:
    v = Vocabulary.from_text("abc")
    ids, unknown = gradients.encode_corpus(Corpus("x", "axbyyc"), v)
    assert ids.tolist() == [0, 1, 2]
    assert unknown == 3
    rare = Vocabulary([*map(ord, "abc"), units.UNKNOWN], ord("a"))
    assert gradients.encode_corpus(Corpus("x", "axbyyc"), rare)[1] == 0


def table(out: bytes) -> tuple[list[str], Ids | Array]:
    head, *rows = out.decode().splitlines()
    return head.split("\t"), np.array([[float(x) for x in row.split("\t")] for row in rows])


@pytest.fixture
def lstm(cli: Cli, text: str) -> None:
    """A model of two layers, m.npz, in the current folder."""
    options = ("--max-steps", "3", "--hidden-size", "8", "--cell", "lstm", "--num-layers", "2")
    cli("train", "-", *options, "-o", "m.npz", stdin=text.encode())


def test_gradflow_prints_a_table(cli: Cli, lstm: None, text: str) -> None:
    def run(*args: str) -> tuple[list[str], Array]:
        head, *rows = cli("gradflow", *args, stdin=text.encode()).stdout.decode().splitlines()
        return head.split("\t"), np.array([row.split("\t") for row in rows], float)

    head, rows = run("m.npz", "-", "--lags", "9")
    assert head == ["lag", "m 0", "m 0 c", "m 1", "m 1 c"]
    assert rows[:, 0].tolist() == list(range(10))
    args = ("-", "--hidden-size", "8", "--lags", "3")
    head, rows = run(*args)
    assert head == ["lag", "vanilla", "gru", "lstm", "lstm c"]
    assert run(*args, "--cell", "rnn")[0] == ["lag", "vanilla"]
    assert (run(*args, "--seed", "1")[1][:, 1:3] != rows[:, 1:3]).all()


def test_gradcheck_prints_the_largest_error_of_each_parameter(
    cli: Cli, lstm: None, text: str
) -> None:
    done = cli("gradcheck", "m.npz", "-", "--entries", "5", stdin=f"{text}ж".encode())
    rows = [line.split("\t") for line in done.stdout.decode().splitlines()]
    assert [name for name, *_ in rows][-2:] == ["Why", "by"]
    assert all(n == "5" and float(error) < 1e-4 for _, n, error in rows)
    assert b"skipped 1 unknown symbol\n" in done.stderr
    assert b"all gradients are correct" in done.stderr


@pytest.mark.parametrize(
    ("args", "stdin", "rc"),
    [
        ("gradflow m.npz", "abc", 2),
        ("gradflow m.npz - --cell gru", "abc", 2),
        ("gradcheck m.npz - -", "abc", 2),
        ("gradflow m.npz - --lags 3", "and", 3),
        ("gradflow - --lags 3", "and", 3),
        ("gradcheck none.npz -", "and", 4),
        ("gradflow m.npz -", "жжж", 3),
        ("gradcheck m.npz -", "жжж", 3),
    ],
)
def test_bad_input_gets_one_line(cli: Cli, lstm: None, args: str, stdin: str, rc: int) -> None:
    err = cli(*args.split(), stdin=stdin.encode(), rc=rc).stderr
    assert err.splitlines()[-1].startswith(b"charrnn: ")
    assert (b"skipped 3 unknown symbols\n" in err) == (stdin == "жжж")


def test_gradflow_plots(cli: Cli, text: str) -> None:
    options = ("--hidden-size", "8", "--lags", "3", "--plot", "flow.svg")
    cli("gradflow", "-", *options, stdin=text.encode())
    assert "<svg" in Path("flow.svg").read_text()


def test_gradcheck_of_wrong_gradient_exits_6(
    cli: Cli, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, "gru", "factor for Whh")
    done = cli("gradcheck", run, "corpus.txt", rc=6)
    assert done.stderr.endswith(b"wrong gradient: 0.Whh\n")
