"""A network that reads vectors: gradient, steps, standardization, bad files."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charrnn.bidirectional import count_parameters, make_network
from charrnn.captioner import Captioner
from charrnn.config import CELLS, Config
from charrnn.errors import TextError
from charrnn.network import Stepper
from charrnn.training.parallel import DataParallel
from charrnn.vectors import Vectors, open_vectors, standardize
from charrnn.workers import Workers
from tests.conftest import assert_gradients_match

T, B, V, H, D = 6, 3, 5, 4, 3


def random_vectors(each: bool = False) -> Vectors:
    rng = np.random.default_rng(0)
    rows = 3 + 2 * rng.standard_normal((4, D))
    return standardize(rows, np.arange(3), None, each=each)


def random_network(cell: str, num_layers: int, vectors: Vectors) -> Captioner:
    network = Captioner(cell, V, H, num_layers, np.float64, vectors=vectors)
    rng = np.random.default_rng(num_layers)
    network.params.vector[:] = 0.7 * rng.standard_normal(len(network.params.vector))
    return network


def random_batch(each: bool = False) -> tuple[Any, Any]:
    """Return ids with rows, two lanes with the same one, and targets."""
    rng, vectors = np.random.default_rng(1), random_vectors(each)
    xs, ys = rng.integers(0, V, (T, B)), rng.integers(0, V, (T, B))
    for lane, row in enumerate([1, 3, 1]):
        xs[:, lane] = vectors.mark(xs[:, lane], np.array([T]), np.array([row]), V)
    return xs, ys


@pytest.mark.parametrize("cell", sorted(CELLS))
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("each", [False, True])
def test_gradients_match_central_differences(cell: str, num_layers: int, each: bool) -> None:
    network, (xs, ys) = random_network(cell, num_layers, random_vectors(each)), random_batch(each)
    assert_gradients_match(network, xs, ys, np.random.default_rng(0), dropout=True)


@pytest.mark.parametrize("each", [False, True])
def test_a_vector_is_a_column_of_the_first_layer(each: bool) -> None:
    vectors, (xs, _) = random_vectors(each), random_batch(each)
    network = random_network("gru", 2, vectors)
    tape = network.new_tape(T, B)
    network.forward_input(xs, tape)
    p, rows = network.params, [1, 3, 1]
    v = (vectors.rows - vectors.rows[:3].mean(0)) / vectors.rows[:3].std(0)
    for t in range(T):
        for lane in range(B):
            ax = p["0.Wxh"][:, xs[t, lane] % V] + p["0.bh"]
            if each or t == 0:
                ax = ax + p["Wih"] @ v[rows[lane]]
            np.testing.assert_allclose(tape.layers[0].a[t, :, lane], ax, rtol=0, atol=1e-12)


@pytest.mark.parametrize("lanes", [1, 3])
def test_steps_one_by_one_match_all_at_once(lanes: int) -> None:
    network, xs = random_network("lstm", 2, random_vectors()), random_batch()[0][:, :lanes]
    tape, step = network.new_tape(T, lanes), Stepper(network, network.zero_state(lanes))
    network.forward(xs, network.zero_state(lanes), tape)
    for ids, logits in zip(xs, tape.logits, strict=True):
        np.testing.assert_allclose(step(ids), logits, rtol=0, atol=1e-12)


def test_workers_have_the_vectors(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    np.save(path, random_vectors().rows)
    vectors = standardize(open_vectors(path), np.arange(3), str(path), each=False)
    network, (xs, ys) = random_network("gru", 1, vectors), random_batch()
    assert len(pickle.dumps(vectors)) < 1000
    results = []
    for n in (1, 2):
        with Workers(n) as workers:
            parallel = DataParallel(network.copy(), T, B, workers)
            loss = parallel.loss_and_grad(xs, ys, network.zero_state(B), None, T * B)
            results.append((loss, parallel.network.grads.vector.copy()))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-12)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=0, atol=1e-12)


def test_the_number_of_parameters_is_known_in_advance() -> None:
    config = Config(hidden_size=H, num_layers=2, predict="text")
    network = make_network(config, V, vectors=random_vectors())
    assert len(network.params.vector) == count_parameters(config, V, None, [D])


def test_weights_of_a_network_without_vectors_are_loaded() -> None:
    network, other = (random_network("gru", 1, random_vectors()) for _ in range(2))
    other.params.vector[:] = 2
    plain = make_network(Config(hidden_size=H, dtype="float64"), V)
    plain.params.vector[:] = 1
    wanted = network.params["Wih"].copy()
    network.load_weights_from(plain, np.arange(V), np.arange(V))
    assert (network.params["0.Whh"] == 1).all()
    assert (network.params["Wih"] == wanted).all()
    network.load_weights_from(other, np.arange(V), np.arange(V))
    assert (network.params["Wih"] == 2).all()


# --- files ---


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f8", "u1", "i8", "?"])
@pytest.mark.parametrize("shape", [(5, 3), (5, 4, 3)])
def test_every_real_type_is_standardized(tmp_path: Path, dtype: str, shape: Any) -> None:
    rows = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    rows[..., 2] = 1  # constant
    np.save(tmp_path / "v.npy", rows)
    loaded = open_vectors(tmp_path / "v.npy")
    assert isinstance(loaded, np.memmap)
    vectors, flat = standardize(loaded, np.arange(4), None, each=False), rows[:4].astype(float)
    wanted = flat.reshape(-1, 3)[:, :2]
    np.testing.assert_allclose(vectors.mean[:2], wanted.mean(0), atol=1e-12)
    np.testing.assert_allclose(vectors.deviation[:2], wanted.std(0), atol=1e-12)
    read = vectors.read(np.arange(5))
    assert read.shape == (5, 3)
    assert (read[:, 2] == 0).all()


class Trap:
    """A pickle that would leave a file behind if it were loaded."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("trapped"),)


def test_bad_files_are_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good = np.zeros((3, 2))
    nan, infinite = good.copy(), np.zeros((2000, 2), np.float16)
    nan[1, 0], infinite[1500, 1] = np.nan, np.inf
    arrays: dict[str, Any] = {"nan": nan, "inf": infinite, "complex": good + 1j}
    arrays |= {"text": np.array([["a"]]), "flat": np.zeros(3), "none": np.zeros((0, 2))}
    for name, array in arrays.items():
        np.save(name + ".npy", array)
    np.save("object.npy", np.array([Trap()], object), allow_pickle=True)
    Path("pickle.npy").write_bytes(pickle.dumps(Trap()))
    np.savez("zip", good)
    Path("zip.npz").rename("zip.npy")
    np.save("short.npy", good)
    data = Path("short.npy").read_bytes()
    Path("short.npy").write_bytes(data[:-1])
    Path("bracket.npy").write_bytes(data.replace(b"(", b"((", 1).replace(b"  ", b" ", 1))
    Path("empty.npy").write_bytes(b"")
    Path("folder.npy").mkdir()
    reasons = {
        "nan": "row 1, counted from 0, has NaN",
        "inf": "row 1,500, counted",
        "complex": "an array of complex128, not of real numbers",
        "text": "not of real numbers",
        "flat": "shape \\(3,\\)",
        "none": "shape \\(0, 2\\)",
        "object": "not an array of numbers",
        "pickle": "not an array of numbers",
        "zip": "an .npz archive",
        "short": "not an array of numbers",
        "bracket": "not an array of numbers",
        "empty": "not an array of numbers",
        "folder": "not a regular file",
        "missing": "o such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(TextError, match=f"{name}.npy: .*{reason}"):
            open_vectors(Path(f"{name}.npy"))
    assert not Path("trapped").exists()
