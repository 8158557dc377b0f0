"""Break checkpoints at random: a broken one must be refused in one line, or be the same model.

``python -m tests.fuzz 3000`` tries 3,000 mutations. Each has a seed, and ``1 --seed S`` repeats the
one of seed S. A mutated file must be refused or have the very same content. One that was sealed
again with the right checksums ("forged") may be another model, which must work then.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import random
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import charrnn
from charrnn.errors import CharrnnError
from charrnn.storage import checkpoint
from charrnn.storage.state import ModelState
from tests.conftest import read_run
from tests.forge import Members, header_of, members, pack, put, sealed, sealed_array

MAX_SECONDS = 2.0
MAX_BYTES = 200_000_000
TEXT = "the quick brown fox jumps over the lazy dog; 한글 too.\n" * 40
EDGES = [0, 1, 2, 8, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF]
EDGES += [2**63 - 1, 2**64 - 1]
WRONG: list[Any] = [None, True, False, 0, 1, -1, 65536, 2**31, 2**53 + 1, 2**63, 10**30, 0.5, -0.5]
WRONG += [1e300, 1e-300, "", "x", "\n", "\x00", "\u2028", "\ud800", "😀", "x" * 100_000, [], [[]]]
WRONG += [[None], [1, 2], ["x"], [0.5], {}, {"x": 1}, {"": None}, float("nan"), float("inf")]
WRONG += [0x110000, 0x10FFFF, 0xD800]
Mutation = Callable[[random.Random, bytes], bytes]


class ValidFile(NamedTuple):
    """An undamaged file, and its content."""

    name: str
    data: bytes
    state: ModelState
    model: tuple[object, ...]


def content(model: charrnn.Model) -> tuple[object, ...]:
    network, vocabulary = model.network, model.vocabulary
    weights, symbols = network.params.vector, vocabulary.codes.tobytes()
    parts = weights.dtype, weights.tobytes(), network.architecture, symbols
    return (*parts, vocabulary.start_symbol, model.state)


def valid_files(folder: Path) -> list[ValidFile]:
    """Write one file of each kind, with the same bytes every time."""
    options: dict[str, Any] = {"hidden_size": 6, "batch_size": 4, "seq_length": 8, "eval_every": 2}
    paths = [folder / f"{name}.npz" for name in ("started", "finished", "full", "half")]
    charrnn.train(TEXT, output=paths[0], max_steps=3, epochs=1, **options)
    options |= {"max_steps": 5, "sample_every": 2, "cell": "lstm", "num_layers": 2}
    model = charrnn.train(TEXT, output=paths[1], **options)
    for path in paths[:2]:  # times differ from run to run
        state, (_, arrays) = read_run(path), checkpoint.read_checkpoint(path)
        state.train_seconds = 1.0
        for row in state.history:
            row["seconds"] = 1.0
        if path == paths[0]:
            state.plans[0]["steps"], state.finished = 1000, False
        checkpoint.write_checkpoint(path, state, arrays)
    model.save(paths[2])
    model.save(paths[3], half=True)
    return [
        ValidFile(p.stem, p.read_bytes(), checkpoint.read_state(p), content(charrnn.load(p)))
        for p in paths
    ]


# --- bytes ---


def block(rng: random.Random, data: bytes) -> tuple[int, int]:
    a = rng.randrange(len(data))
    return a, min(len(data), a + rng.choice([1, 1, 2, 4, 16, 100, 2000]))


def flip(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 10])):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwrite(rng: random.Random, data: bytes) -> bytes:
    a, b = block(rng, data)
    return data[:a] + rng.choice([rng.randbytes(b - a), bytes(b - a), b"\xff" * (b - a)]) + data[b:]


def insert(rng: random.Random, data: bytes) -> bytes:
    a, b = block(rng, data)
    return (
        data[:a]
        + rng.choice([rng.randbytes(b - a), data[a:b], b"PK\5\6", b"PK\1\2", b"\n"])
        + data[a:]
    )


def delete(rng: random.Random, data: bytes) -> bytes:
    a, b = block(rng, data)
    return data[:a] + data[b:]


def truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def move(rng: random.Random, data: bytes) -> bytes:
    (a, b), at = block(rng, data), rng.randrange(len(data))
    return data[:at] + data[a:b] + data[at + rng.choice([0, b - a]) :]


def change_tail(rng: random.Random, data: bytes) -> bytes:
    """Change the zip's directory, where a byte matters more than elsewhere."""
    a = data.index(b"PK\1\2")
    change: Mutation = rng.choice([flip, overwrite, insert, delete])
    return data[:a] + change(rng, data[a:])


# --- the structure of the zip ---


# the size of each field in bytes, after the mark
FIELDS = [
    (b"PK\1\2", [2, 2, 2, 2, 2, 2, 4, 4, 4, 2, 2, 2, 2, 2, 4, 4]),
    (b"PK\3\4", [2, 2, 2, 2, 2, 4, 4, 4, 2, 2]),
    (b"PK\5\6", [2, 2, 2, 2, 4, 4, 2]),
]


def change_field(rng: random.Random, data: bytes) -> bytes:
    """Write another number into a field of the directory, its end, or a local header."""
    mark, sizes = rng.choice(FIELDS)
    offsets = [at for at in range(len(data)) if data.startswith(mark, at)]
    which = rng.randrange(len(sizes))
    at, size = rng.choice(offsets) + 4 + sum(sizes[:which]), sizes[which]
    old = int.from_bytes(data[at : at + size], "little")
    new: int = (
        rng.choice([*EDGES, old + 1, old - 1, old * 2, old + 8, len(data), rng.getrandbits(32)])
        % 256**size
    )
    return data[:at] + new.to_bytes(size, "little") + data[at + size :]


def repack(rng: random.Random, data: bytes) -> bytes:
    """Rename, double, reorder, drop, add or compress members."""
    old = members(data)
    i = rng.randrange(len(old))
    name, content = old[i]
    names = [
        "best_weights.npy",
        "last_weights.npy",
        "header.json",
        "x.npy",
        "../best_weights.npy",
        "/etc/passwd",
        "best_weights.npy/",
        "",
        "é" * 99,
    ]
    changes: list[Callable[[], Members]] = [
        lambda: [*old[:i], (rng.choice(names), content), *old[i + 1 :]],
        lambda: [*old, (name, content)],
        lambda: [*old, (name, rng.randbytes(9))],
        lambda: rng.sample(old, len(old)),
        lambda: old[:i] + old[i + 1 :],
        lambda: [*old, (rng.choice(names), rng.randbytes(rng.choice([0, 10, 1000])))],
        lambda: [*old, *((str(n), b"") for n in range(3000))],
        lambda: [
            *old[:i],
            (name, rng.choice([flip, truncate, delete, insert])(rng, content)),
            *old[i + 1 :],
        ],
    ]
    method = rng.choice(
        [zipfile.ZIP_STORED] * 6 + [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    )
    return pack(rng.choice(changes)(), method)


def change_npy_head(rng: random.Random, data: bytes) -> bytes:
    """Write another head over an array: its type, shape, order, version or length."""
    name, old = rng.choice([m for m in members(data) if m[0] != "header.json"])
    head, body = old[: 10 + old[8]], old[10 + old[8] :]
    n = len(body) // 4
    descr = rng.choice(
        ["<f4"] * 5 + ["<f2", "<f8", ">f4", "|O", "<i4", "<U4", "|S1", "f4", "<m8", "x", "<f4,<f4"]
    )
    shape = rng.choice(
        [f"({n},)", f"({n}, 1)", f"(1, {n})", "()", "(0,)", "(-1,)", f"({10**12},)", f"({10**30},)"]
    )
    order = rng.choice(["False", "False", "True"])
    text = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n"
    new = head[:6] + rng.choice([b"\1\0"] * 5 + [b"\2\0", b"\3\0", b"\0\0"])
    new += (
        rng.choice([len(text), len(text), len(text), 0, 0xFFFF]).to_bytes(2, "little")
        + text.encode()
    )
    kept = rng.choice([body, body, body + bytes(4), body[:-4], b""])
    return put(data, name, rng.choice([new + kept, flip(rng, head) + body]))


# --- the header ---


def containers(value: Any) -> list[tuple[Any, Any]]:
    """Return each dict or list in a header, with each of its keys."""
    items = list(
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [(value, key) for key, _ in items] + [
        container for _, item in items for container in containers(item)
    ]


def header(rng: random.Random, data: bytes) -> bytes:
    """Change, remove or add a field, or the JSON around it; the checksum is unchanged."""
    text = json.dumps(changed(rng, header_of(data)))
    if rng.random() < 0.2:
        a, b = text[: len(text) // 2], text[len(text) // 2 :]
        deep = rng.choice([1000, 100_000])
        others = [
            text + " ",
            text + "x",
            a + b[1:],
            a + "," + b,
            text[:-1] + ', "step": 0}',
            "[" * deep,
            '{"a":' * deep,
        ]
        others += [
            text.replace("1", "9" * 5000, 1),
            text.replace("0.", "NaN", 1),
            text.replace("0.", "1e999", 1),
        ]
        text = rng.choice(others)
    return put(data, "header.json", text.encode("utf-8", "surrogatepass"))


def changed(rng: random.Random, header: dict[str, Any]) -> dict[str, Any]:
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        all_containers = containers(header)
        above, key = rng.choice(all_containers)
        what = rng.random()
        if what < 0.7:
            other = rng.choice(all_containers)
            above[key] = copy.deepcopy(
                rng.choice([rng.choice(WRONG), other[0][other[1]], nudge(rng, above[key])])
            )
        elif what < 0.85:
            del above[key]
        elif isinstance(above, dict):
            above[rng.choice(["x", "", "\n", "\ud800", "step"])] = rng.choice(WRONG)
        else:
            above.insert(key, rng.choice([rng.choice(WRONG), above[key]]))
    return header


def nudge(rng: random.Random, value: Any) -> Any:
    """Return another value of the same type."""
    if type(value) is int:
        return value + rng.choice([-1, 1, 10, 1000, 2**40])
    if type(value) is float:
        return value * rng.choice([-1, 2, 1e200])
    if type(value) is str:
        return rng.choice(
            [
                value + value,
                value[1:],
                value[::-1],
                value + "\n",
                rng.choice(["float64", "lstm", "rnn"]),
            ]
        )
    return value


# --- forged: the checksums are right ---


def forge_header(rng: random.Random, data: bytes) -> bytes:
    return sealed(data, changed(rng, header_of(data)))


def forge_array(rng: random.Random, data: bytes) -> bytes:
    arrays = dict(members(data))
    name = rng.choice([name for name in arrays if name != "header.json"])
    old = np.load(io.BytesIO(arrays[name]))
    bits = np.frombuffer(rng.randbytes(old.nbytes), old.dtype).reshape(old.shape)
    extremes = [255, 7] if old.dtype == np.uint8 else [np.finfo(old.dtype).max, np.nan, -np.inf]
    extreme = rng.choice([*extremes, 0, 1])
    others = [bits, np.full_like(old, extreme), old[..., :-1], old.astype("<f8")]
    others += [old.reshape(-1, 1), old[..., None], old.T]
    return sealed_array(data, name.removesuffix(".npy"), rng.choice(others))


BYTES: list[Mutation] = [flip, overwrite, insert, delete, truncate, move, change_tail, change_field]
REPACKED: list[Mutation] = [repack, change_npy_head, header]
FORGED: list[Mutation] = [forge_header, forge_array]


# --- the outcome ---


def peak() -> int:
    """Return the peak of this process's memory in bytes, or 0 if the system does not know it."""
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def classify(path: Path, valid: ValidFile, forged: bool) -> tuple[str, str]:
    """Return the outcome, ``same``, ``refused``, ``loaded`` or ``FAILED``, and its reason."""
    outcomes, reason = [], ""

    def load() -> bool:
        model = charrnn.load(path)
        if forged:
            assert len("".join(model.sample(3, seed=0))) == 3
        return content(model) == valid.model

    reads: list[Callable[[], bool]] = [lambda: checkpoint.read_state(path) == valid.state, load]
    for read in reads:
        before, started = peak(), time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                if forged:  # finite weights may still lead to non-finite logits
                    warnings.simplefilter("ignore", RuntimeWarning)
                same = read()
            outcomes.append("same" if same else "loaded")
            if not same and not forged:
                return "FAILED", "another content was loaded"
        except CharrnnError as e:
            reason = str(e)
            if len(reason.splitlines()) != 1 or not reason.isprintable():
                return "FAILED", f"more than a line: {reason!r}"
            outcomes.append("refused")
        except Exception as e:
            return "FAILED", f"{type(e).__name__}: {e}"[:300]
        if time.perf_counter() - started > MAX_SECONDS:
            return "FAILED", f"{time.perf_counter() - started:.1f} s"
        if peak() - before > MAX_BYTES:
            return "FAILED", f"{(peak() - before) / 1e6:.0f} MB"
    return next(o for o in ("refused", "loaded", "same") if o in outcomes), reason


def mutate(seed: int, files: list[ValidFile]) -> tuple[ValidFile, Mutation, bytes]:
    rng = random.Random(seed)
    valid = rng.choice(files)
    mutation = rng.choice(rng.choice([BYTES, REPACKED, FORGED]))
    return valid, mutation, mutation(rng, valid.data)


def fuzz(n: int, seed: int) -> tuple[Counter[str], list[str], Counter[str]]:
    """Try ``n`` mutations; return the counts of the outcomes, the failures, and the refusals."""
    counts: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        files = valid_files(Path(folder))
        path = Path(folder) / "x.npz"
        for s in range(seed, seed + n):
            valid, mutation, data = mutate(s, files)
            forged = mutation in FORGED
            path.write_bytes(data)
            outcome, reason = classify(path, valid, forged)
            counts[f"{'forged' if forged else 'broken'}, {outcome}"] += 1
            if outcome == "FAILED":
                failures.append(f"seed {s}: {mutation.__name__} of {valid.name}: {reason}")
            elif outcome == "refused":
                refusals[" ".join(reason.removeprefix(f"{path}: ").split()[:6])] += 1
    return counts, failures, refusals


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("n", type=int, help="number of mutations")
    parser.add_argument("--seed", type=int, default=0, help="of the first one")
    parser.add_argument("--reasons", action="store_true", help="count the refusals too")
    given = parser.parse_args(args)
    counts, failures, refusals = fuzz(given.n, given.seed)
    for failure in failures:
        print(failure)
    for outcome, count in sorted(counts.items()) + (
        refusals.most_common() if given.reasons else []
    ):
        print(f"{count:7,} {outcome}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
