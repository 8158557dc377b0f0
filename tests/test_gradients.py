"""Gradient flow and the gradient check, against central differences and planted faults."""

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charrnn import gradients, loss, units
from charrnn.arrays import Array, Ids
from charrnn.cells import load_cell
from charrnn.cells.base import Tape
from charrnn.config import CELLS
from charrnn.corpus import Corpus
from charrnn.errors import TextError
from charrnn.stack import Stack
from charrnn.vocabulary import Vocabulary
from tests.conftest import Cli, numeric, random_stack

T, B, V, H = 6, 3, 7, 4


@pytest.mark.parametrize("cell", sorted(CELLS))
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_state_gradient_norms_match_central_differences(cell: str, num_layers: int) -> None:
    """Naively: change a state after its step; the layers above and all later steps read it."""
    rng, stack = np.random.default_rng(0), random_stack(cell, num_layers)
    xs, ys = rng.integers(0, V, (T, B)), rng.integers(0, V, B)
    state = rng.standard_normal(stack.zero_state(B).shape)
    tape = stack.new_tape(T, B)
    norms = gradients.state_gradient_norms(stack, xs, ys, state, tape)
    assert norms.shape == (T, num_layers, len(stack.cell.STATE_NAMES), B)

    nudge = np.zeros(state.shape[1:])  # of one layer's states, after one step

    def last_loss(layer: int, step: int) -> float:
        states, logits = [s.copy() for s in state], np.empty((V, B))
        for t in range(T):
            x = stack.p["0.Wxh"][:, xs[t]]
            for l in range(num_layers):
                if l:
                    x = stack.p[f"{l}.Wxh"] @ x
                ax = (x + stack.p[f"{l}.bh"][:, None])[None]
                one = stack.cell.new_tape(1, H, B, np.float64)
                states[l] = stack.cell.forward(stack.p[f"{l}.Whh"], ax, states[l], one)[1].copy()
                if (l, t) == (layer, step):
                    states[l] += nudge
                x = states[l][0]
            logits = stack.p["Why"] @ x + stack.p["by"][:, None]
        return float(loss.forward(logits, ys)[0].sum())

    for layer, k in itertools.product(range(num_layers), (0, 1, 2, T - 1)):
        wanted = np.linalg.norm(numeric(partial(last_loss, layer, T - 1 - k), nudge), axis=1)
        np.testing.assert_allclose(norms[k, layer], wanted, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("w", [0.5, 0.9, 1.1])
def test_vanilla_gradient_changes_by_the_scale_of_its_matrix(w: float) -> None:
    stack = Stack("vanilla", V, 32, 1, np.float64, np.random.default_rng(0))
    stack.p["0.Whh"][:] *= w  # it was orthogonal
    stack.p["0.Wxh"][:] *= 1e-15  # h stays small, through 200 steps that may grow
    ids = np.random.default_rng(1).integers(0, V, 3000)
    norms = gradients.gradient_flow(stack, ids, ids[:1], 20)[:, 0, 0]
    slopes = np.diff(np.log(norms))
    np.testing.assert_allclose(slopes, np.log(w), rtol=0.02)


def test_open_forget_gate_keeps_the_gradient_of_c() -> None:
    stack = Stack("lstm", V, 16, 1, np.float64, np.random.default_rng(0))
    ids = np.random.default_rng(1).integers(0, V, 3000)
    stack.p["0.Whh"][:] = 0
    stack.p["0.bh"].reshape(4, -1)[1] = 50
    norms = gradients.gradient_flow(stack, ids, ids[:1], 100)[1:, 0, 1]
    np.testing.assert_allclose(norms, norms[0], rtol=1e-12)
    stack.p["0.bh"].reshape(4, -1)[1] = 0
    stack.p["0.Wxh"].reshape(4, -1, V)[1] = 0
    norms = gradients.gradient_flow(stack, ids, ids[:1], 100)[
        1:, 0, 1
    ]  # half open, half of it remains
    np.testing.assert_allclose(norms[1:] / norms[:-1], 0.5, rtol=1e-12)


def test_flow_is_the_geometric_mean_over_warmed_up_positions() -> None:
    stack = random_stack("gru", 2)
    ids = np.random.default_rng(1).integers(0, V, 1000)
    lags, logs = 5, []
    starts = np.linspace(0, 1000 - 6 - 1 - 200, 64).astype(int)
    for s in starts:
        state = stack.forward(
            ids[s : s + 200, None], stack.zero_state(1), stack.new_tape(200, 1)
        ).copy()
        xs, ys = ids[s + 200 : s + 206, None], ids[s + 206, None]
        logs.append(
            np.log(
                gradients.state_gradient_norms(stack, xs, ys, state, stack.new_tape(6, 1))[..., 0]
            )
        )
    assert starts[-1] + 206 == 999  # the last symbol is the last target
    wanted = np.exp(np.mean(logs, axis=0))
    np.testing.assert_allclose(
        gradients.gradient_flow(stack, ids, ids[:1], lags), wanted, rtol=1e-10
    )


def test_flow_in_documents_starts_with_each() -> None:
    stack = random_stack("lstm", 1)
    ids, start = np.random.default_rng(1).integers(0, V, 30), np.array([2])
    ends = np.array([3, 8, 14, 30])
    got = gradients.gradient_flow(stack, ids, start, 4, ends)
    norms = []
    for s in (3, 8, 14):  # the first document is shorter than 5
        xs = np.array([2, *ids[s : s + 4]])[:, None]
        tape, zero = stack.new_tape(5, 1), stack.zero_state(1)
        norms.append(
            gradients.state_gradient_norms(stack, xs, ids[s + 4, None], zero, tape)[..., 0]
        )
    assert got[0, 0, 1] == 0  # of the last c, with the last h held
    np.testing.assert_allclose(got, np.prod(norms, axis=0) ** (1 / 3), rtol=1e-10)
    with pytest.raises(TextError, match="use --lags 15 or fewer"):
        gradients.gradient_flow(stack, ids, start, 16, ends)
    assert gradients.gradient_flow(stack, ids, start, 15, ends).shape == (16, 1, 2)


def test_flow_of_a_short_text_names_the_largest_lag() -> None:
    stack, ids = random_stack("gru", 1), np.random.default_rng(1).integers(0, V, 10)
    assert (gradients.gradient_flow(stack, ids, ids[:1], 8) > 0).all()
    with pytest.raises(TextError, match="use --lags 8 or fewer"):
        gradients.gradient_flow(stack, ids, ids[:1], 9)


def checked(stack: Stack) -> dict[str, float]:
    rng = np.random.default_rng(0)
    xs, ys = rng.integers(0, V, (2, T, B))
    state = rng.standard_normal(stack.zero_state(B).shape)
    return {name: error for name, _, error in gradients.check_gradients(stack, xs, ys, state, rng)}


@pytest.mark.parametrize("cell", sorted(CELLS))
def test_correct_gradients_pass(cell: str) -> None:
    stack = random_stack(cell, 2)
    before = stack.p.vector.copy()
    errors = checked(stack)
    assert list(errors) == list(stack.p)
    assert max(errors.values()) < gradients.TOLERANCE / 5
    assert (stack.p.vector == before).all()


def test_rounding_of_a_tiny_gradient_is_not_an_error() -> None:
    stack = random_stack("gru", 1)
    stack.p["Why"][:] *= 1e-8
    assert max(checked(stack).values()) < gradients.TOLERANCE / 5


@pytest.mark.parametrize("cell", sorted(CELLS))
@pytest.mark.parametrize(
    "wrong", ["a factor for Whh", "a factor for ax", "no gradient of the last step", "nan"]
)
def test_wrong_gradient_is_found(cell: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = load_cell(cell).backward

    def backward(
        Whh: Array, dWhh: Array, dhs: Array, dstate: Array, tape: Tape[Any]
    ) -> tuple[Array, Array]:
        dax, dstate = right(Whh, dWhh, dhs, dstate, tape)
        if wrong == "a factor for Whh":
            dWhh *= 1.01
        elif wrong == "a factor for ax":
            dax *= 1.01
        elif wrong == "nan":
            dWhh[0, 0] = np.nan
        else:
            dax[-1] = 0
        return dax, dstate

    monkeypatch.setattr(load_cell(cell), "backward", backward)
    errors = checked(random_stack(cell, 1))
    found = {name for name, error in errors.items() if not error <= gradients.TOLERANCE}
    assert found == ({"0.Whh"} if wrong in ("a factor for Whh", "nan") else {"0.Wxh", "0.bh"})


def test_gradient_wrongly_zero_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = load_cell("gru").backward

    def backward(Whh: Array, dWhh: Array, *rest: Any) -> tuple[Array, Array]:
        dax, dstate = right(Whh, dWhh, *rest)
        dWhh[: len(dWhh) // 2] = 0
        return dax, dstate

    monkeypatch.setattr(load_cell("gru"), "backward", backward)
    assert checked(random_stack("gru", 1))["0.Whh"] == pytest.approx(1)


def test_half_of_the_entries_have_a_gradient() -> None:
    stack = Stack("gru", 5000, 3, 1, np.float64, np.random.default_rng(0))
    xs = np.array([[17], [4000]])
    stack.p["0.Wxh"][:, [17, 4000]] = 0.5
    seen: list[float] = []
    stack_forward = Stack.forward

    def forward(self: Stack, *args: object, **kw: object) -> Array:
        seen.append(float((self.p["0.Wxh"][:, [17, 4000]] != 0.5).sum()))
        return stack_forward(self, *args, **kw)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as m:
        m.setattr(Stack, "forward", forward)
        results = list(
            gradients.check_gradients(
                stack, xs, xs, stack.zero_state(1), np.random.default_rng(0), 20
            )
        )
    assert sum(seen) >= 20  # ten entries, up and down
    assert results[0][1] == 20


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


def test_gradient_commands_print_tables(cli: Cli, tmp_path: str, text: str) -> None:
    cli("train", "-", "--max-steps", 3, "--hidden-size", 8, "--cell", "lstm", "--num-layers", 2, "-o", "m.npz", "-q", stdin=text.encode())  # fmt: skip  # noqa: E501
    head, rows = table(
        cli("gradflow", "m.npz", "-", "--lags", 9, stdin=(text + "ж").encode()).stdout
    )
    assert head == ["lag", "m 0", "m 0 c", "m 1", "m 1 c"]
    assert rows[:, 0].tolist() == list(range(10))
    args = ["gradflow", "-", "--hidden-size", 8, "--lags", 3]
    head, rows = table(cli(*map(str, args), stdin=text.encode()).stdout)
    assert head == ["lag", "vanilla", "gru", "lstm", "lstm c"]
    assert table(cli(*map(str, args), "--cell", "rnn", stdin=text.encode()).stdout)[0] == [
        "lag",
        "vanilla",
    ]
    assert (
        table(cli(*map(str, args), "--seed", "1", stdin=text.encode()).stdout)[1][:, 1:3]
        != rows[:, 1:3]
    ).all()
    assert (
        b"skipped 1 unknown symbol\n" in cli("gradcheck", "m.npz", "-", stdin=(text + "ж").encode()).stderr
    )
    done = cli("gradcheck", "m.npz", "-", "--entries", 5, stdin=text.encode())
    checked = [line.split("\t") for line in done.stdout.decode().splitlines()]
    assert [row[0] for row in checked][-2:] == ["Why", "by"]
    assert all(row[1] == "5" and float(row[2]) < 1e-4 for row in checked)
    assert b"all gradients are correct" in done.stderr
    for wrong, rc in [
        (["gradflow", "m.npz"], 2),
        (["gradflow", "m.npz", "-", "--cell", "gru"], 2),
        (["gradcheck", "m.npz", "-", "-"], 2),
        (["gradflow", "m.npz", "-", "--lags", "7000"], 3),
        (["gradflow", "-", "--lags", "7000"], 3),
        (["gradcheck", "none.npz", "-"], 4),
    ]:
        assert cli(*wrong, stdin=text.encode(), rc=rc).stderr.splitlines()[-1].startswith(b"charrnn: ")
    for command in ("gradflow", "gradcheck"):
        assert cli(command, "m.npz", "-", stdin="жжж".encode(), rc=3).stderr.count(b"\n") == 3


def test_gradflow_plots(cli: Cli, tmp_path: Path, text: str) -> None:
    pytest.importorskip("matplotlib")
    cli(
        "gradflow",
        "-",
        "--hidden-size",
        "8",
        "--lags",
        "3",
        "--plot",
        "flow.svg",
        stdin=text.encode(),
    )
    assert "<svg" in (tmp_path / "flow.svg").read_text()


def test_gradcheck_of_wrong_gradient_exits_6(
    tmp_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from charrnn.cli import main
    from charrnn.model import train

    path = f"{tmp_path}/m.npz"
    train("hello world " * 50, output=path, hidden_size=8, max_steps=2)
    right = load_cell("gru").backward

    def backward(
        Whh: Array, dWhh: Array, dhs: Array, dstate: Array, tape: Tape[Any]
    ) -> tuple[Array, Array]:
        found = right(Whh, dWhh, dhs, dstate, tape)
        dWhh *= 1.01
        return found

    monkeypatch.setattr(load_cell("gru"), "backward", backward)
    done = CliRunner().invoke(main, ["gradcheck", path, "-"], input="hello world")
    assert done.exit_code == 6
    assert "wrong gradient: 0.Whh\n" in done.output
