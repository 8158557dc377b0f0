"""A checkpoint for the tests, and the tools to forge others from its bytes."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
import zipfile
from typing import Any

import numpy as np

from charrnn.config import Config
from charrnn.counts import number_ngrams, prune
from charrnn.network import Network
from charrnn.storage.ngrams import pack as pack_counts
from charrnn.storage.state import ModelState, State

Members = list[tuple[str, bytes]]

NETWORK = Network("gru", 4, 3, 1, np.float32, np.random.default_rng(0))
ARRAYS: dict[str, Any] = {
    "best_weights": NETWORK.params.vector,
    "average_weights": NETWORK.params.vector / 2,
    "hidden_state": NETWORK.zero_state(2),
    "last_weights": NETWORK.params.vector + 1,
    "optimizer_state": np.zeros((2, len(NETWORK.params.vector)), np.float32),
}
GRAMS = list(number_ngrams(np.array([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 2]), 4))
COUNTS, ARRAYS["counts"] = pack_counts(prune(GRAMS), 4)
GATE = [0.5] * 15
MODEL: dict[str, Any] = {
    "versions": {"charrnn": "0.2.0", "numpy": "2.0", "python": "3.13"},
    "config": Config(hidden_size=3, unit="jamo", seed=2**64 - 1),
    "vocabulary": {"size": 4, "symbols": "\n한😀", "special": [0x110005], "start_symbol": 10},
    "parameters": len(NETWORK.params.vector),
    "step": 7,
    "epoch": 0.5,
    "best": {"step": 7, "val_loss": 1.25},
    "test_loss": None,
}
SPELLING = [*range(0x110000 + 69, 0x110000 + 88)]
WORDS: dict[str, Any] = {  # the same of a model of words
    "config": Config(hidden_size=3, unit="word"),
    "vocabulary": {
        "size": 23,
        "symbols": "\na",
        "special": SPELLING,
        "start_symbol": 10,
        "words": ["ab", "cd"],
    },
}
TEXT: dict[str, Any] = {
    "name": "x",
    "files": [("x.txt", 5, 0), ("-", 3, 1), (None, 1, 2)],
    "num_files": 3,
    "bytes": 9,
    "characters": 9,
    "symbols": 8,
    "sha256": "ab",
}
RUN: dict[str, Any] = {
    **MODEL,
    "counts": COUNTS,
    "mixing": {
        "static": GATE,
        "learning": GATE,
        "adaptation": {"learning_rate": 0.1, "decay": 0.001, "gate": GATE},
        "counts_loss": 1.5,
        "mixed_loss": None,
    },
    "command": "charrnn train x.txt",
    "workers": 1,
    "ranks": 1,
    "sync_every": 1,
    "corpus": {**TEXT, "split_characters": {"train": 7, "val": 1, "test": 0}},
    "val_corpus": TEXT,
    "batches": {"batch_size": 2, "seq_length": 3, "steps_per_epoch": 1},
    "plans": [{"from_step": 0, "steps": 9, "eval_every": 1, "sample_every": 0}],
    "finished": False,
    "data_position": (3, 1),
    "symbols_seen": 42,
    "num_averaged": 2,
    "train_seconds": 0.5,
    "initial_loss": 2.0,
    "running_loss": {"sum": 1.5, "steps": 1},
    "nonfinite_events": [{"step": 3, "reason": "loss nan", "restored": True}],
    "nonfinite_streak": 0,
    "baselines": {"val": {"1-gram": 2.5}, "test": {"1-gram": 2.25}},
    "history": [
        {
            "step": 7,
            "epoch": 0.5,
            "train_loss": 1.5,
            "val_loss": 1.25,
            "grad_norm": None,
            "learning_rate": 1e-07,
            "characters_seen": 42,
            "seconds": 0.5,
        }
    ],
    "samples": [{"step": 1, "text": "한\n\\{[,"}],
    "notes": ["a\u2028note\n"],
    "init_from": {"file": "z.npz", "sha256": None, "matched": 1, "added": 0, "unused": 2},
}


def run_state(**changes: Any) -> State:
    return State(**{**RUN, **changes})


def model_state(**changes: Any) -> ModelState:
    return ModelState(**{**MODEL, **changes})


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
    """Replace a member."""
    return pack([(other, new if other == name else old) for other, old in members(data)])


def header_of(data: bytes) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(dict(members(data))["header.json"])
    return header


def sealed_header(header: dict[str, Any]) -> bytes:
    """Return a header with its right checksum, computed as documented and not by the code."""
    rest = {key: value for key, value in header.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    sha256 = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return json.dumps({**rest, "sha256": sha256}).encode()


def sealed(data: bytes, header: dict[str, Any]) -> bytes:
    """Replace the header, with its right checksum."""
    return put(data, "header.json", sealed_header(header))


def sealed_array(data: bytes, name: str, a: Any) -> bytes:
    """Replace an array, with the right checksums."""
    header = header_of(data)
    sha256 = hashlib.sha256(f"{a.dtype.str} {a.shape}".encode() + a.tobytes()).hexdigest()
    header["arrays"][name] = sha256
    return put(sealed(data, header), f"{name}.npy", npy(a))


def npy(a: Any) -> bytes:
    f = io.BytesIO()
    np.save(f, a)
    return f.getvalue()


def npy_head(head: str, version: bytes = b"\1\0") -> bytes:
    length = len(head).to_bytes(2 if version[0] == 1 else 4, "little")
    return b"\x93NUMPY" + version + length + head.encode()
