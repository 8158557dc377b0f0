"""Break checkpoints at random, and see that a broken one is refused in one line or is still the same model.

``python -m tests.fuzz 3000`` tries that many mutations; each has a seed of its own, and ``1 --seed S`` makes the one
of seed S again. A mutation of the file must leave the very same model or be refused. One that was sealed again with
a right checksum ("forged") may be another model, which must then work.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
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
from charrnn import checkpoint
from charrnn.errors import CharrnnError

SECONDS, MEMORY = 2.0, 200_000_000
TEXT = "the quick brown fox jumps over the lazy dog; 한글 too.\n" * 40
EDGES = [0, 1, 2, 8, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1]
WRONG: list[Any] = [None, True, False, 0, 1, -1, 65536, 2**31, 2**53 + 1, 2**63, 10**30, 0.5, -0.5, 1e300, 1e-300]
WRONG += ["", "x", "\n", "\x00", "\u2028", "\ud800", "😀", "x" * 100_000, [], [[]], [None], [1, 2], ["x"], [0.5], {}]
WRONG += [{"x": 1}, {"": None}, float("nan"), float("inf"), 0x110000, 0x10FFFF, 0xD800]
Members = list[tuple[str, bytes]]
Mutation = Callable[[random.Random, bytes], bytes]


class Good(NamedTuple):
    """A whole file, and what it holds."""

    name: str
    data: bytes
    header: dict[str, Any]
    model: tuple[object, ...]


def content(model: charrnn.Model) -> tuple[object, ...]:
    vector = model.stack.p.vector
    symbols = model.vocabulary.decode(np.arange(len(model.vocabulary)))
    return (
        vector.dtype,
        vector.tobytes(),
        model.stack.architecture,
        symbols,
        model.vocabulary.start_symbol,
        model.header,
    )


def good_files(folder: Path) -> list[Good]:
    """Make one of each kind, the same bytes every time."""
    options: dict[str, Any] = {"hidden_size": 6, "batch_size": 4, "seq_length": 8, "eval_every": 2}
    paths = [folder / f"{name}.npz" for name in ("started", "finished", "full", "half")]
    charrnn.train(TEXT, output=paths[0], max_steps=3, epochs=1, **options)
    model = charrnn.train(TEXT, output=paths[1], max_steps=5, sample_every=2, cell="lstm", num_layers=2, **options)
    header, arrays = checkpoint.load(paths[0])
    header |= {"plans": [{**header["plans"][0], "steps": 1000}], "finished": False}
    checkpoint.save(paths[0], header, arrays)
    for path in paths[:2]:  # what a clock has told would be another number every time
        header, arrays = checkpoint.load(path)
        still = {"train_seconds": 1.0, "history": [{**row, "seconds": 1.0} for row in header["history"]]}
        checkpoint.save(path, header | still, arrays)
    model.save(paths[2])
    model.save(paths[3], half=True)
    return [Good(p.stem, p.read_bytes(), checkpoint.read_header(p), content(charrnn.load(p))) for p in paths]


# --- bytes ---


def block(rng: random.Random, data: bytes) -> tuple[int, int]:
    a = rng.randrange(len(data))
    return a, min(len(data), a + rng.choice([1, 1, 2, 4, 16, 100, 2000]))


def flipped(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 10])):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwritten(rng: random.Random, data: bytes) -> bytes:
    a, b = block(rng, data)
    return data[:a] + rng.choice([rng.randbytes(b - a), bytes(b - a), b"\xff" * (b - a)]) + data[b:]


def inserted(rng: random.Random, data: bytes) -> bytes:
    a, b = block(rng, data)
    return data[:a] + rng.choice([rng.randbytes(b - a), data[a:b], b"PK\5\6", b"PK\1\2", b"\n"]) + data[a:]


def deleted(rng: random.Random, data: bytes) -> bytes:
    a, b = block(rng, data)
    return data[:a] + data[b:]


def truncated(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def moved(rng: random.Random, data: bytes) -> bytes:
    (a, b), at = block(rng, data), rng.randrange(len(data))
    return data[:at] + data[a:b] + data[at + rng.choice([0, b - a]) :]


def tail(rng: random.Random, data: bytes) -> bytes:
    """Change the zip's directory, where a byte tells more than elsewhere."""
    a = data.index(b"PK\1\2")
    change: Mutation = rng.choice([flipped, overwritten, inserted, deleted])
    return data[:a] + change(rng, data[a:])


# --- the structure of the zip ---


# how many bytes each field has, after the mark
FIELDS = [
    (b"PK\1\2", [2, 2, 2, 2, 2, 2, 4, 4, 4, 2, 2, 2, 2, 2, 4, 4]),
    (b"PK\3\4", [2, 2, 2, 2, 2, 4, 4, 4, 2, 2]),
    (b"PK\5\6", [2, 2, 2, 2, 4, 4, 2]),
]


def numbers(rng: random.Random, data: bytes) -> bytes:
    """Write another number into a field of the directory, of its end, or of a member's own head."""
    mark, sizes = rng.choice(FIELDS)
    places = [at for at in range(len(data)) if data.startswith(mark, at)]
    which = rng.randrange(len(sizes))
    at, size = rng.choice(places) + 4 + sum(sizes[:which]), sizes[which]
    old = int.from_bytes(data[at : at + size], "little")
    new: int = rng.choice([*EDGES, old + 1, old - 1, old * 2, old + 8, len(data), rng.getrandbits(32)]) % 256**size
    return data[:at] + new.to_bytes(size, "little") + data[at + size :]


def members(data: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        return [(info.filename, z.read(info)) for info in z.infolist()]


def pack(members: Members, method: int = zipfile.ZIP_STORED) -> bytes:
    f = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(f, "w", method) as z:
        warnings.simplefilter("ignore")  # a name may come twice
        for name, data in members:
            z.writestr(zipfile.ZipInfo(name), data, method)
    return f.getvalue()


def put(data: bytes, name: str, new: bytes) -> bytes:
    return pack([(other, new if other == name else old) for other, old in members(data)])


def repacked(rng: random.Random, data: bytes) -> bytes:
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
        lambda: [*old[:i], (name, rng.choice([flipped, truncated, deleted, inserted])(rng, content)), *old[i + 1 :]],
    ]
    method = rng.choice([zipfile.ZIP_STORED] * 6 + [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    return pack(rng.choice(changes)(), method)


def npy(rng: random.Random, data: bytes) -> bytes:
    """Write another head over an array: its type, shape, order, version or length."""
    name, old = rng.choice([m for m in members(data) if m[0] != "header.json"])
    head, body = old[: 10 + old[8]], old[10 + old[8] :]
    n = len(body) // 4
    descr = rng.choice(["<f4"] * 5 + ["<f2", "<f8", ">f4", "|O", "<i4", "<U4", "|S1", "f4", "<m8", "x", "<f4,<f4"])
    shape = rng.choice([f"({n},)", f"({n}, 1)", f"(1, {n})", "()", "(0,)", "(-1,)", f"({10**12},)", f"({10**30},)"])
    text = f"{{'descr': '{descr}', 'fortran_order': {rng.choice(['False', 'False', 'True'])}, 'shape': {shape}, }}\n"
    new = head[:6] + rng.choice([b"\1\0"] * 5 + [b"\2\0", b"\3\0", b"\0\0"])
    new += rng.choice([len(text), len(text), len(text), 0, 0xFFFF]).to_bytes(2, "little") + text.encode()
    kept = rng.choice([body, body, body + bytes(4), body[:-4], b""])
    return put(data, name, rng.choice([new + kept, flipped(rng, head) + body]))


# --- the header ---


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return each dict or list in a header, with each of its keys."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    return [(value, key) for key, _ in items] + [place for _, item in items for place in places(item)]


def header(rng: random.Random, data: bytes) -> bytes:
    """Change, remove or add a field, or the JSON around it; the checksum stays as it was."""
    old = json.loads(dict(members(data))["header.json"])
    text = json.dumps(changed(rng, old))
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
        others += [text.replace("1", "9" * 5000, 1), text.replace("0.", "NaN", 1), text.replace("0.", "1e999", 1)]
        text = rng.choice(others)
    return put(data, "header.json", text.encode("utf-8", "surrogatepass"))


def changed(rng: random.Random, header: dict[str, Any]) -> dict[str, Any]:
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        all_places = places(header)
        above, key = rng.choice(all_places)
        what = rng.random()
        if what < 0.7:
            other = rng.choice(all_places)
            above[key] = copy.deepcopy(rng.choice([rng.choice(WRONG), other[0][other[1]], near(rng, above[key])]))
        elif what < 0.85:
            del above[key]
        elif isinstance(above, dict):
            above[rng.choice(["x", "", "\n", "\ud800", "step"])] = rng.choice(WRONG)
        else:
            above.insert(key, rng.choice([rng.choice(WRONG), above[key]]))
    return header


def near(rng: random.Random, value: Any) -> Any:
    """Return another value of the same type."""
    if type(value) is int:
        return value + rng.choice([-1, 1, 10, 1000, 2**40])
    if type(value) is float:
        return value * rng.choice([-1, 2, 1e200])
    if type(value) is str:
        return rng.choice([value + value, value[1:], value[::-1], value + "\n", rng.choice(["float64", "lstm", "rnn"])])
    return value


# --- forged: the checksums are right ---


def sealed(data: bytes, header: dict[str, Any]) -> bytes:
    """Put the header in, with the checksum that fits it."""
    header.pop("sha256", None)
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    header["sha256"] = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return put(data, "header.json", json.dumps(header).encode())


def forged_header(rng: random.Random, data: bytes) -> bytes:
    return sealed(data, changed(rng, json.loads(dict(members(data))["header.json"])))


def forged_array(rng: random.Random, data: bytes) -> bytes:
    parts = dict(members(data))
    header = json.loads(parts["header.json"])
    name = rng.choice([name for name in parts if name != "header.json"])
    old = np.load(io.BytesIO(parts[name]))
    bits = np.frombuffer(rng.randbytes(old.nbytes), old.dtype).reshape(old.shape)
    extreme = np.full_like(old, rng.choice([np.finfo(old.dtype).max, np.nan, -np.inf, 0, 1]))
    new = rng.choice([bits, extreme, old[..., :-1], old.astype("<f8"), old.reshape(-1, 1), old[..., None], old.T])
    f = io.BytesIO()
    np.save(f, new)
    if "arrays" in header:
        sha256 = hashlib.sha256(f"{new.dtype.str} {new.shape}".encode() + new.tobytes()).hexdigest()
        header["arrays"][name.removesuffix(".npy")] = sha256
    return sealed(put(data, name, f.getvalue()), header)


BYTES: list[Mutation] = [flipped, overwritten, inserted, deleted, truncated, moved, tail, numbers]
REPACKED: list[Mutation] = [repacked, npy, header]
FORGED: list[Mutation] = [forged_header, forged_array]


# --- what comes of it ---


def peak() -> int:
    """Return the most memory that this process ever had, in bytes; 0 where the system does not tell."""
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def judge(path: Path, good: Good, forged: bool) -> tuple[str, str]:
    """Return the outcome, ``same``, ``refused``, ``loaded`` or ``FAILED``, and what there is to tell of it."""
    outcomes, told = [], ""

    def load() -> bool:
        model = charrnn.load(path)
        if forged:
            assert len("".join(model.sample(3, seed=0))) == 3
        return content(model) == good.model

    reads: list[Callable[[], bool]] = [lambda: checkpoint.read_header(path) == good.header, load]
    for read in reads:
        before, began = peak(), time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                if forged:  # finite weights may still lead to logits that are not
                    warnings.simplefilter("ignore", RuntimeWarning)
                same = read()
            outcomes.append("same" if same else "loaded")
            if not same and not forged:
                return "FAILED", "another content was loaded"
        except CharrnnError as e:
            told = str(e)
            if len(told.splitlines()) != 1 or not told.isprintable():
                return "FAILED", f"more than a line: {told!r}"
            outcomes.append("refused")
        except Exception as e:
            return "FAILED", f"{type(e).__name__}: {e}"[:300]
        if time.perf_counter() - began > SECONDS:
            return "FAILED", f"{time.perf_counter() - began:.1f} s"
        if peak() - before > MEMORY:
            return "FAILED", f"{(peak() - before) / 1e6:.0f} MB"
    return next(o for o in ("refused", "loaded", "same") if o in outcomes), told


def mutate(seed: int, goods: list[Good]) -> tuple[Good, Mutation, bool, bytes]:
    rng = random.Random(seed)
    good = rng.choice(goods)
    mutation = rng.choice(rng.choice([BYTES, REPACKED, FORGED]))
    return good, mutation, mutation in FORGED, mutation(rng, good.data)


def fuzz(n: int, seed: int) -> tuple[Counter[str], list[str], Counter[str]]:
    """Try ``n`` mutations; return the count of each outcome, the failures, and the count of each refusal."""
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        goods = good_files(Path(folder))
        path = Path(folder) / "x.npz"
        for s in range(seed, seed + n):
            good, mutation, forged, data = mutate(s, goods)
            path.write_bytes(data)
            outcome, told = judge(path, good, forged)
            counts[f"{'forged' if forged else 'broken'}, {outcome}"] += 1
            if outcome == "FAILED":
                failures.append(f"seed {s}: {mutation.__name__} of {good.name}: {told}")
            elif outcome == "refused":
                reasons[" ".join(told.removeprefix(f"{path}: ").split()[:6])] += 1
    return counts, failures, reasons


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("n", type=int, help="how many mutations")
    parser.add_argument("--seed", type=int, default=0, help="of the first one")
    parser.add_argument("--reasons", action="store_true", help="count the refusals too")
    given = parser.parse_args(args)
    counts, failures, reasons = fuzz(given.n, given.seed)
    for failure in failures:
        print(failure)
    for outcome, count in sorted(counts.items()) + (reasons.most_common() if given.reasons else []):
        print(f"{count:7,} {outcome}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
