"""Measure what is known of every frame: python bench/frames.py LABELS.txt FRAMES.npz.

LABELS has the label of a recording on each line, without spaces, FRAMES the recordings as
sequences of vectors, as in docs/captions.md. Recordings are joined in random order into long
sequences; the tag of each frame is the label of its recording. The last tenth of the recordings is
not trained on. The frames with the right tag are counted there, in other sequences.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import charrnn
from charrnn.sequences import open_sequences

Recordings = list[tuple[str, NDArray[np.float32]]]  # label and vectors


def join(recordings: Recordings, n: int, rng: np.random.Generator) -> Recordings:
    """Return sequences of n recordings each, which are drawn in random order, with their tags."""
    order, joined = rng.permutation(len(recordings)), []
    for start in range(0, len(order), n):
        chosen = [recordings[i] for i in order[start : start + n]]
        tags = " ".join(label for label, v in chosen for _ in v)
        joined.append((tags, np.concatenate([v for _, v in chosen])))
    return joined


def write(folder: Path, name: str, sequences: Recordings) -> None:
    """Write NAME.txt and NAME.npz, as charrnn reads them."""
    lines = "".join(f"{tags}\n" for tags, _ in sequences)
    (folder / f"{name}.txt").write_text(lines, encoding="utf-8")
    vectors, lengths = np.concatenate([v for _, v in sequences]), [len(v) for _, v in sequences]
    np.savez(folder / f"{name}.npz", vectors=vectors, lengths=lengths)


def frame_accuracy(model: charrnn.Model, folder: Path, tags: list[str]) -> float:
    """Return the share of the frames of test.npz with the right tag."""
    model.use_features(folder / "test.npz")
    found = model.predict([""] * len(tags), rows=range(len(tags)))
    pairs = [
        pair
        for prediction, line in zip(found, tags, strict=True)
        for pair in zip(prediction.tags, line.split(), strict=True)
    ]
    return sum(a == b for a, b in pairs) / len(pairs)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("labels", type=Path)
    parser.add_argument("frames", type=Path)
    parser.add_argument("--join", type=int, default=8, help="recordings in a sequence [8]")
    parser.add_argument("--copies", type=int, default=8, help="times each is trained on [8]")
    parser.add_argument("--epochs", type=float, default=5, help="passes over the copies [5]")
    parser.add_argument("--hidden-size", type=int, default=96, help="of each network [96]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a folder for the sequences and the model")
    given = parser.parse_args()
    labels = given.labels.read_text(encoding="utf-8").split()
    vectors, ends = open_sequences(given.frames)
    recordings = list(zip(labels, np.split(vectors, ends[:-1]), strict=True))
    held_out, rng = len(recordings) // 10, np.random.default_rng(given.seed)
    train, test = recordings[:-held_out], recordings[-held_out:]
    joined = [s for _ in range(given.copies) for s in join(train, given.join, rng)]
    test_sequences = join(test, given.join, rng)
    tags = [line for line, _ in test_sequences]
    counts = Counter(" ".join(tags).split())
    majority = max(counts.values()) / counts.total()
    print(f"{len(joined):,} sequences to train on; majority of the frames {majority:.4f}")
    with tempfile.TemporaryDirectory() as name:
        folder = given.output or Path(name)
        folder.mkdir(exist_ok=True)
        write(folder, "train", joined)
        write(folder, "test", test_sequences)
        for bidirectional in (False, True):
            started = time.perf_counter()
            model = charrnn.train(
                folder / "train.txt",
                features=folder / "train.npz",
                predict="tags",
                bidirectional=bidirectional,
                hidden_size=given.hidden_size,
                dropout=0.3,
                learning_rate=0.004,
                batch_size=32,
                epochs=given.epochs,
                seed=given.seed,
                output=folder / f"{'both' if bidirectional else 'left'}.npz",
                force=True,
            )
            seconds = time.perf_counter() - started
            kind = "bidirectional" if bidirectional else "from the left"
            accuracy = frame_accuracy(model, folder, tags)
            print(f"{kind}: {accuracy:.4f} of the frames, {seconds:.0f} s of training", flush=True)


if __name__ == "__main__":
    main()
