"""Sequences of vectors: the network that reads them, their files, labels and tags for them."""

from __future__ import annotations

import functools
import io
import json
import operator
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charrnn
from charrnn.arrays import Ids
from charrnn.bidirectional import Bidirectional, count_parameters, make_network
from charrnn.config import CELLS, Config
from charrnn.errors import TextError, UsageError
from charrnn.network import Network
from charrnn.sequences import Sequences, open_sequences, standardize_sequences
from charrnn.storage.checkpoint import read_checkpoint
from charrnn.text.corpus import SymbolStore
from charrnn.training.parallel import DataParallel
from charrnn.vectors import MarkedSlice
from charrnn.workers import Workers
from tests.conftest import Cli, assert_gradients_match, assert_lanes_match_alone
from tests.forge import header_of, sealed

B, V, H, O, D = 3, 2, 4, 3, 5
LENGTHS = np.array([4, 1, 5, 2])
ENDS = np.cumsum(LENGTHS)
LANES = [2, 0, 3]  # the sequence that each lane reads
T = 6
STEP_ID, END_ID = 0, 1


def random_sequences() -> Sequences:
    rows = 3 + 2 * np.random.default_rng(0).standard_normal((int(ENDS[-1]), D))
    return standardize_sequences(rows, ENDS, np.array([0, 2]))


def random_network(cell: str, num_layers: int, *, bidirectional: bool = False) -> Network:
    config = Config(
        cell=cell,
        hidden_size=H,
        num_layers=num_layers,
        predict="tags",
        bidirectional=bidirectional,
        dtype="float64",
    )
    network = make_network(config, V, O, vectors=random_sequences())
    rng = np.random.default_rng(num_layers)
    network.params.vector[:] = 0.7 * rng.standard_normal(len(network.params.vector))
    return network


def random_batch(kind: str, padding: int) -> tuple[Ids, Ids]:
    """Return what lanes of different lengths read, and random labels or tags."""
    rng, sequences = np.random.default_rng(1), random_sequences()
    xs, ys = np.full((T, B), padding), np.full((T, B), -1)
    for lane, row in enumerate(LANES):
        n = int(LENGTHS[row])
        ids = np.append(np.full(n, STEP_ID), END_ID)
        xs[: n + 1, lane] = sequences.mark(ids, np.array([n + 1]), np.array([row]), V)
        if kind == "tags":
            ys[:n, lane] = rng.integers(0, O, n)
        else:
            ys[n, lane] = rng.integers(0, O)
    return xs, ys


# --- the network ---


@pytest.mark.parametrize("cell", sorted(CELLS))
@pytest.mark.parametrize("kind", ["label", "tags"])
@pytest.mark.parametrize(("num_layers", "bidirectional"), [(1, False), (2, False), (2, True)])
def test_gradients_match_central_differences(
    cell: str, num_layers: int, kind: str, bidirectional: bool
) -> None:
    network = random_network(cell, num_layers, bidirectional=bidirectional)
    xs, ys = random_batch(kind, network.PADDING)
    assert_gradients_match(network, xs, ys, np.random.default_rng(0), dropout=True)


def test_the_first_layer_reads_the_standardized_vectors() -> None:
    network = random_network("gru", 1)
    xs, _ = random_batch("tags", network.PADDING)
    tape, p = network.new_tape(T, B), network.params
    network.forward_input(xs, tape)
    assert network.vectors
    rows = np.split(network.vectors.rows, ENDS[:-1])
    train = np.concatenate([rows[0], rows[2]])
    for lane, row in enumerate(LANES):
        v = (rows[row] - train.mean(0)) / train.std(0)
        for t in range(T):
            ax = p["0.Wxh"][:, xs[t, lane] % V] + p["0.bh"]
            if t < LENGTHS[row]:
                ax = ax + p["Wih"] @ v[t]
            np.testing.assert_allclose(tape.layers[0].a[t, :, lane], ax, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["label", "tags"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_padded_lane_gives_what_it_gives_alone(kind: str, bidirectional: bool) -> None:
    network = random_network("lstm", 2, bidirectional=bidirectional)
    xs, ys = random_batch(kind, network.PADDING)
    lengths = [int(LENGTHS[row]) + 1 for row in LANES]
    assert_lanes_match_alone(network, xs, ys, network.zero_state(B), lengths)


def test_the_end_has_the_last_states_of_both_sides() -> None:
    network = random_network("gru", 1, bidirectional=True)
    assert isinstance(network, Bidirectional)
    for row in (0, 2):
        n = int(LENGTHS[row])
        ids = np.append(np.full(n, STEP_ID), END_ID)
        xs = random_sequences().mark(ids, np.array([n + 1]), np.array([row]), V)[:, None]
        turned = np.append(xs[:-1][::-1], xs[-1:], axis=0)
        tape, logits = network.new_tape(n + 1, 1), 0
        for side, read in ((network.left, xs), (network.right, turned)):
            alone = side.new_tape(n + 1, 1)
            side.forward(read, side.zero_state(1), alone)
            logits = logits + alone.logits[-1]
        network.forward(xs, network.zero_state(1), tape)
        np.testing.assert_allclose(tape.logits[-1], logits, rtol=0, atol=1e-12)


def test_both_sides_read_other_sequences_when_these_are_replaced() -> None:
    network = random_network("gru", 1, bidirectional=True)
    assert isinstance(network, Bidirectional)
    assert network.vectors
    other = network.vectors.replace(np.zeros((2, 3, D)))
    for copied in (network.copy(), pickle.loads(pickle.dumps(network))):
        assert isinstance(copied, Bidirectional)
        copied.vectors = other
        assert copied.left.vectors is copied.right.vectors is other
        assert (copied.params.vector == network.params.vector).all()
    with pytest.raises(TextError, match="a vector has 4 numbers, the model reads 5 numbers"):
        network.vectors.replace(np.zeros((2, 3, 4)))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_two_workers_give_what_one_gives(tmp_path: Path, bidirectional: bool) -> None:
    np.savez(tmp_path / "s.npz", vectors=random_sequences().rows, lengths=LENGTHS)
    network, results = random_network("gru", 1, bidirectional=bidirectional), []
    assert network.vectors
    network.vectors = network.vectors.replace(tmp_path / "s.npz")
    xs, ys = random_batch("tags", network.PADDING)
    for n in (1, 2):
        with Workers(n) as workers:
            parallel = DataParallel(network.copy(), T, B, workers)
            loss = parallel.loss_and_grad(xs, ys, network.zero_state(B), None, 10)
            results.append((loss, parallel.network.grads.vector.copy()))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-12)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_number_of_parameters_is_known_in_advance(bidirectional: bool) -> None:
    config = Config(hidden_size=H, predict="label", bidirectional=bidirectional)
    network = make_network(config, V, O, vectors=random_sequences())
    assert len(network.params.vector) == count_parameters(config, V, O, [D])


def test_any_part_of_the_lines_has_the_marks_of_the_whole() -> None:
    sequences, lines = random_sequences(), np.array([2, 1, 3, 0])
    ends = np.cumsum(LENGTHS[lines] + 1)
    codes = np.zeros(ends[-1], np.uint32)
    codes[ends - 1] = 1
    store = SymbolStore()
    store.append(codes)
    store.finalize()
    whole = sequences.mark(codes.astype(int), ends, lines, V)
    assert whole[ends - 1].tolist() == [END_ID] * 4
    assert whole[:3].tolist() == [V * (ENDS[1] + t + 1) for t in range(3)]
    train = MarkedSlice(store, np.arange(2), 0, len(codes), sequences, ends, lines, V)
    for start in range(len(codes)):
        for stop in range(start, len(codes) + 1):
            assert train[start:stop].tolist() == whole[start:stop].tolist()


# --- files ---


def test_the_layouts_of_sequences_are_read(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((6, D)).astype(np.float16)
    np.savez(tmp_path / "s.npz", vectors=rows, lengths=np.array([1, 3, 2], np.uint8))
    np.savez_compressed(tmp_path / "c.npz", lengths=[1, 3, 2], vectors=rows, other=["x"])
    np.save(tmp_path / "s.npy", rows.reshape(3, 2, D))
    for name, wanted in (("s.npz", [1, 4, 6]), ("c.npz", [1, 4, 6]), ("s.npy", [2, 4, 6])):
        vectors, ends = open_sequences(tmp_path / name)
        assert (vectors == rows).all()
        assert ends.tolist() == wanted
    sequences = standardize_sequences(vectors, ends, np.array([0]), str(tmp_path / "s.npy"))
    assert isinstance(sequences.rows, np.memmap)
    assert len(pickle.dumps(sequences)) < 1000
    same = pickle.loads(pickle.dumps(sequences))
    assert (same.rows == sequences.rows).all()
    assert (same.ends == sequences.ends).all()
    assert sequences.texts([1, 0]) == ["\n\n", "\n\n"]


class Trap:
    """A pickle that would leave a file behind if it were loaded."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("trapped"),)


def write_members(path: str, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as z:
        for name, data in members.items():
            z.writestr(name, data)


def npy(array: Any) -> bytes:
    f = io.BytesIO()
    np.save(f, array)
    return f.getvalue()


def test_bad_files_are_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    v, n = np.zeros((6, 2)), np.array([2, 4])
    nan = v.copy()
    nan[3, 1] = np.nan
    archives: dict[str, Any] = {
        "nan": (nan, n, "row 3, counted from 0, has NaN"),
        "complex": (v + 1j, n, "an array of complex128, not of real numbers"),
        "text": (v.astype(str), n, "not of real numbers"),
        "flat": (v[0], n, r"'vectors' of the shape \(2,\)"),
        "none": (v[:0], n[:0], r"shape \(0, 2\)"),
        "object": (np.array([Trap()]), n, "its 'vectors' is damaged, or no array"),
        "trap": (v, np.array([Trap()]), "its 'lengths' is damaged, or no array"),
        "floats": (v, n + 0.0, "'lengths' are float64"),
        "table": (v, n[None], r"'lengths' are int64 of the shape \(1, 2\), not a list of int"),
        "zero": (v, [6, 0], "'lengths' has 0 at 1, for 6 vectors"),
        "negative": (v, [7, -1], "'lengths' has 7 at 0"),
        "wraps": (v, np.array([2**64 - 1, 7], np.uint64), "'lengths' has 18446744073709551615 at"),
        "short": (v, [2, 3], "the sum of 'lengths' is 5, but there are 6 'vectors'"),
        "empty": (v, np.zeros(0, int), "the sum of 'lengths' is 0"),
    }
    reasons = {}
    for name, (vectors, lengths, reason) in archives.items():
        np.savez(f"{name}.npz", vectors=vectors, lengths=lengths)
        reasons[f"{name}.npz"] = reason
    np.savez("names.npz", v, n)
    np.savez("one.npz", vectors=v)
    np.save("rows.npy", v)
    good = npy(v)
    huge = good.replace(b"(6, 2)", b"(%d,)" % 10**15).replace(b" " * 12 + b"\n", b"\n", 1)
    for name, data in {"cut": good[:-8], "huge": huge, "pickle": pickle.dumps(Trap())}.items():
        write_members(f"{name}.npz", {"vectors.npy": data, "lengths.npy": npy(n)})
    whole = Path("short.npz").read_bytes()
    Path("half.npz").write_bytes(whole[: len(whole) // 2])
    Path("changed.npz").write_bytes(whole.replace(bytes(96), b"x" * 96, 1))
    Path("text.npy").write_text("a b")
    Path("folder.npz").mkdir()
    reasons |= {
        "names.npz": "has no 'vectors'; an .npz file needs vectors and lengths",
        "one.npz": "has no 'lengths'",
        "rows.npy": r"shape \(6, 2\); must be \(sequences, steps, size\), or an .npz",
        "cut.npz": "its 'vectors' is damaged",
        "huge.npz": "its 'vectors' is damaged|not enough free memory for its 'vectors'",
        "pickle.npz": r"'vectors' of the shape \(\)",
        "half.npz": "not an array of numbers",
        "changed.npz": "its 'vectors' is damaged",
        "text.npy": "not an array of numbers",
        "folder.npz": "not a regular file",
        "missing.npz": "o such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(TextError, match=f"^{name}: .*({reason})") as e:
            open_sequences(Path(name))
        assert "\n" not in str(e.value)
    assert not Path("trapped").exists()


# --- labels and tags ---

SIZE = "--hidden-size", "16", "--batch-size", "20", "--lr", "0.02", "--workers", "1", "-q"
LABEL = "train", "labels.txt", "--features", "s.npz", "--predict", "label", *SIZE
TAGS = "train", "tags.txt", "--features", "s.npz", "--predict", "tags", *SIZE
N = 240


def write_sequences(seed: int = 0) -> None:
    """Write sequences with two marks, whose order is the label, and tags that name the last mark.

    The sum of the vectors says nothing of the label.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 9, N)
    labels, tags, sequences = [], [], []
    for n in lengths:
        v, which = 0.1 * rng.standard_normal((n, 3)), int(rng.integers(2))
        first, second = sorted(rng.choice(n, 2, replace=False).tolist())
        v[first, which] += 1
        v[second, 1 - which] += 1
        kinds = ["none"] * first + ["ab"[which]] * (second - first)
        tags.append([*kinds, *["ba"[which]] * (n - second)])
        labels.append(("up", "down")[which])
        sequences.append(50 + 7 * v)
    np.savez("s.npz", vectors=np.concatenate(sequences).astype(np.float32), lengths=lengths)
    Path("labels.txt").write_text("".join(f"{label}\n" for label in labels))
    Path("tags.txt").write_text("".join(f"{' '.join(row)}\n" for row in tags))


@pytest.mark.parametrize("more", [(), ("--bidirectional", "--cell", "lstm")])
def test_labels_that_depend_on_the_order_are_learned(cli: Cli, more: tuple[str, ...]) -> None:
    write_sequences()
    cli(*LABEL, *more, "--max-steps", "200", "-o", "m.npz")
    labels = Path("labels.txt").read_text().splitlines()
    rows = [
        json.loads(row) for row in cli("predict", "m.npz", "s.npz", "--json").stdout.splitlines()
    ]
    assert [row["row"] for row in rows] == list(range(N))
    assert rows[0].keys() == {"row", "label", "probability"}
    right = sum(row["label"] == label for row, label in zip(rows, labels, strict=True)) / N
    assert right > 0.95

    # predict, eval and the end of the run agree; nothing but the network is used
    found = json.loads(cli("eval", "m.npz", "labels.txt", "--features", "s.npz", "--json").stdout)
    assert found["accuracy"] == right
    assert found["others"].keys() == {"majority"}
    state, arrays = read_checkpoint(Path("m.npz"))
    assert "counts" not in arrays
    found = json.loads(cli("eval", "m.npz", "--split", "test", "--json").stdout)
    assert found["accuracy"] == state.measures["model"]["accuracy"]  # type: ignore[attr-defined]
    assert state.measures["majority"]["accuracy"] < 0.9  # type: ignore[attr-defined]
    cli("export", "m.npz", "-o", "exported.npz")
    for command in (("predict", "exported.npz", "s.npz", "--top", "2"),):
        assert cli(*command).stdout == cli("predict", "m.npz", *command[2:]).stdout
    text = cli("predict", "m.npz", "s.npz", "--top", "2").stdout.decode().splitlines()[0]
    assert len(text.split("\t")) == 4


def test_a_tag_for_each_vector_is_learned(cli: Cli) -> None:
    write_sequences()
    cli(*TAGS, "--max-steps", "200", "-o", "m.npz")
    wanted = Path("tags.txt").read_text().splitlines()
    lines = cli("predict", "m.npz", "s.npz").stdout.decode().splitlines()
    right = sum(a == b for a, b in zip(lines, wanted, strict=True)) / N
    assert right > 0.9
    found = json.loads(cli("eval", "m.npz", "tags.txt", "--features", "s.npz", "--json").stdout)
    assert found["line_accuracy"] == right
    assert found["others"].keys() == {"majority"}
    row = json.loads(cli("predict", "m.npz", "s.npz", "--json").stdout.splitlines()[3])
    assert row == {"row": 3, "tags": wanted[3].split()}

    # as many characters as vectors, in an array without lengths
    np.save("s.npy", np.load("s.npz")["vectors"][:40].reshape(10, 4, 3))
    Path("short.txt").write_text("abba\n" * 10)
    cli("train", "short.txt", "--features", "s.npy", *TAGS[4:], "--max-steps", "1", "-o", "c.npz")
    assert len(cli("predict", "c.npz", "s.npy").stdout.split()[0]) == 4


@pytest.mark.parametrize("command", [(*LABEL, "--bidirectional"), TAGS])
def test_a_resumed_run_gives_the_same_weights(cli: Cli, command: tuple[str, ...]) -> None:
    write_sequences()
    cli(*command, "--dropout", "0.2", "--max-steps", "16", "-o", "whole.npz")
    cli(*command, "--dropout", "0.2", "--max-steps", "16", "--stop-after", "5", "-o", "part.npz")
    cli("train", command[1], "-o", "part.npz", "--resume", "-q")
    (_, whole), (state, part) = (read_checkpoint(Path(p)) for p in ("whole.npz", "part.npz"))
    for name, array in whole.items():
        assert (array == part[name]).all(), name
    assert state.features
    assert (state.features["rows"], state.features["shape"]) == (N, [3])
    np.savez("s.npz", vectors=np.load("s.npz")["vectors"] + 1, lengths=np.load("s.npz")["lengths"])
    resume = "train", command[1], "-o", "part.npz", "--resume", "--max-steps", "20", "-q"
    assert "the contents of s.npz changed" in cli(*resume, rc=4).stderr.decode()


def test_wrong_lines_are_named_by_their_sequence(cli: Cli) -> None:
    write_sequences()
    cli(*LABEL, "--max-steps", "1", "-o", "m.npz")
    wrong = "eval", "m.npz", "labels.txt", "--features", "s.npz", "--wrong", "1"
    last = cli(*wrong).stdout.decode().splitlines()[-1].split("\t")
    row = json.loads(cli(*wrong, "--json").stdout)["wrong"][0]
    assert "text" not in row
    assert row["line"] == row["row"] + 1
    assert last[1] == f"row {row['row']}"
    assert last[2:] == [row["target"], row["predicted"]]


@pytest.mark.parametrize(
    ("path", "new", "reason"),
    [
        (("features", "shape"), [2, 3], "invalid features.shape in the header: 2 numbers"),
        (("features", "shape"), [], "invalid features.shape in the header: 0 numbers"),
        (("features", "shape"), [4], "best_weights.npy has shape"),
        (("features", "shape"), [2**53], "best_weights.npy has shape"),
        (("config", "unit"), "word", "invalid features in the header|words"),
        (("features",), None, "unexpected arrays: features"),
        (("task", "outputs"), [], "there is no label"),
    ],
)
def test_a_forged_header_is_refused(cli: Cli, path: Any, new: Any, reason: str) -> None:
    write_sequences()
    cli(*LABEL, "--max-steps", "1", "-o", "m.npz")
    data = Path("m.npz").read_bytes()
    header: Any = header_of(data)
    functools.reduce(operator.getitem, path[:-1], header)[path[-1]] = new
    Path("m.npz").write_bytes(sealed(data, header))
    err = cli("predict", "m.npz", "s.npz", rc=4).stderr.decode()
    assert re.search(reason, err), err
    assert len(err.splitlines()) == 1


def test_forged_tags_are_refused(cli: Cli) -> None:
    write_sequences()
    cli(*TAGS, "--max-steps", "2", "--stop-after", "1", "-o", "m.npz")
    data = Path("m.npz").read_bytes()
    resume = "train", "tags.txt", "-o", "m.npz", "--resume", "-q"
    for per, reason in (
        ("x", "invalid task.per in the header: 'x'"),
        ("character", "not those of"),
    ):
        header: Any = header_of(data)
        header["task"]["per"] = per
        Path("m.npz").write_bytes(sealed(data, header))
        for command in (resume, ("eval", "m.npz", "--split", "test")):
            assert reason in cli(*command, rc=4).stderr.decode()


def test_a_report_shows_what_is_wrong_as_eval_does(cli: Cli) -> None:
    write_sequences()
    cli(*LABEL, "--max-steps", "1", "--test-fraction", "0.3", "-o", "m.npz")
    page = cli("report", "m.npz", "-o", "-").stdout.decode()
    rows = cli("eval", "m.npz", "--split", "test", "--wrong", "3").stdout.decode().splitlines()[-3:]
    for row in rows:
        assert f'<td lang="" dir="auto">{row.split(chr(9))[1]}</td>' in page


def test_bad_input_is_refused_in_one_line(cli: Cli) -> None:
    write_sequences()
    vectors, lengths = (np.load("s.npz")[name] for name in ("vectors", "lengths"))
    cli(*LABEL, "--max-steps", "1", "-o", "m.npz")
    np.savez("wide.npz", vectors=np.zeros((6, 4)), lengths=[6])
    np.save("rows.npy", vectors)
    np.savez("long.npz", vectors=np.zeros((4001 + N, 3)), lengths=[4002, *[1] * (N - 1)])
    tags = Path("tags.txt").read_text().splitlines()
    labels = Path("labels.txt").read_text().splitlines()
    Path("short.txt").write_text("up\n")
    Path("tab.txt").write_text("\n".join(["up\tdown", *labels[1:]]))
    Path("empty.txt").write_text("\n".join(["", *labels[1:]]))
    Path("badtags.txt").write_text("\n".join([tags[0] + " a", *tags[1:]]))
    Path("same.txt").write_text("".join("a " * n + "\n" for n in lengths))
    plain = "--predict", "label", *SIZE
    given: list[tuple[tuple[str, ...], int, str]] = [
        (("predict", "m.npz", "wide.npz"), 3, "a vector has 4 numbers, the model reads 3 numbers"),
        (("predict", "m.npz", "rows.npy"), 3, "must be (sequences, steps, size), or an .npz file"),
        (("predict", "m.npz", "labels.txt"), 3, "not an array of numbers"),
        (("predict", "m.npz"), 2, "give a file of vectors"),
        (("predict", "m.npz", "labels.txt", "--features", "s.npz"), 2, "has no text beside it"),
        (("eval", "m.npz", "labels.txt"), 2, "give those of FILE with --features"),
        (("eval", "m.npz", "short.txt", "--features", "s.npz"), 3, f"s.npz has {N} rows"),
        (("train", "short.txt", "--features", "s.npz", *plain), 3, f"1 lines, but s.npz has {N}"),
        (("train", "tab.txt", "--features", "s.npz", *plain), 3, "line 1: it has a text beside"),
        (("train", "empty.txt", "--features", "s.npz", *plain), 3, "line 1: its label is empty"),
        (
            ("train", "labels.txt", "--features", "long.npz", *plain),
            3,
            "it has 4,002 vectors, more",
        ),
        (("train", "badtags.txt", *TAGS[2:]), 3, f"it has {lengths[0]} vectors and"),
        (("train", "same.txt", *TAGS[2:]), 3, "a line has a tag for each vector"),
        ((*LABEL, "--generative"), 2, "--generative does not read --features"),
        ((*LABEL, "--unit", "word"), 2, "--unit word does not read --features"),
        ((*LABEL, "--feature-input", "each"), 2, "does not read --feature-input: a sequence"),
        ((*LABEL, "--val-file", "labels.txt"), 2, "cannot be combined with --features"),
        (("train", "labels.txt", "--features", "s.npz"), 3, "an .npz archive"),
    ]
    for command, code, message in given:
        result = cli(*command, rc=code)
        assert message in result.stderr.decode(), (command, result.stderr)
        assert len(result.stderr.strip().splitlines()) <= 2, command
    cli("train", "empty.txt", *LABEL[2:], "--skip-bad", "--max-steps", "1", "-o", "rest.npz")


def test_python_trains_on_arrays_and_files(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    write_sequences()
    options: dict[str, Any] = {"hidden_size": 8, "max_steps": 3, "predict": "label", "workers": 1}
    labels, path = Path("labels.txt"), Path("m.npz")
    by_path = charrnn.train(labels, features="s.npz", output=path, **options)
    loaded = charrnn.load(path)
    assert loaded.use_features("s.npz") == N
    assert (
        by_path.predict([""] * N, rows=range(N))[5].labels
        == loaded.predict([""] * N, rows=range(N))[5].labels
    )
    v = np.load("s.npz")["vectors"][:80].reshape(20, 4, 3)
    text = "up\ndown\n" * 10
    model = charrnn.train(text, features=v, output=path, force=True, **options)
    model.save("exported.npz")
    again = charrnn.load("exported.npz")
    assert again.use_features(v) == 20
    for found, wanted in zip(
        again.predict([""] * 20, rows=range(20)),
        model.predict([""] * 20, rows=range(20)),
        strict=True,
    ):
        assert (found.logp == wanted.logp).all()
    captions = charrnn.train(text, features=v[:, 0], **{**options, "predict": "text"})
    assert captions.use_features(v[:, 0]) == 20
    assert len(captions.predict([""] * 20, rows=range(20))) == 20
    with pytest.raises(UsageError, match="val cannot be combined with features"):
        charrnn.train(text, features=v, val=text, **options)
    with pytest.raises(TextError, match="20 lines, but features has 19 rows"):
        charrnn.train(text, features=v[1:], **options)


def test_a_model_predicts_about_arrays(cli: Cli) -> None:
    write_sequences()
    cli(*LABEL, "--max-steps", "1", "-o", "m.npz")
    model, v = charrnn.load("m.npz"), np.load("s.npz")["vectors"]
    assert model.use_features(v[:12].reshape(3, 4, 3)) == 3
    together = model.predict([""] * 3, rows=range(3))
    assert model.use_features(v[4:8].reshape(1, 4, 3)) == 1
    np.testing.assert_allclose(model.predict([""], rows=[0])[0].logp, together[1].logp, atol=1e-6)
