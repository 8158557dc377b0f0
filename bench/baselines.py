"""Measure scikit-learn on the test split of a model of labels: python bench/baselines.py MODEL.

The split is the one that the run has drawn, line by line, and what is learned from are its own
training lines. The files of the run are read again; those that have moved can be given.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from charrnn.errors import CharrnnError, UsageError
from charrnn.storage.checkpoint import read_state
from charrnn.tasks.base import Measures
from charrnn.tasks.label import Label, measure_labels
from charrnn.tasks.layouts import Line
from charrnn.tasks.line_corpus import Lines
from charrnn.tasks.lines import load_line_task
from charrnn.training.run import require_run
from charrnn.training.splits import text_of

LONGEST = 5  # of the n-grams, in characters


def read_splits(path: Path, paths: Sequence[Path]) -> tuple[Sequence[Line], Sequence[Line]]:
    """Return the training and the test lines of a run. Raises CharrnnError."""
    state = require_run(read_state(path), path)
    task = load_line_task(state.config)
    if not isinstance(task, Label):
        raise UsageError(f"{path}: predicts {state.config.predict}, and these are for labels")
    given = task.read(state.corpus["name"], state.config, paths=paths) if paths else None
    corpus, val = text_of(state, path, given)
    assert isinstance(corpus, Lines)
    train_end, test_start = corpus.split_offsets
    train, test = corpus.lines[: test_start if val else train_end], corpus.lines[test_start:]
    if not test:
        raise UsageError(f"{path}: has no test split")
    return train, test


def make_classifiers() -> dict[str, Any]:
    """Return scikit-learn's classifiers by their names. Raises UsageError without it."""
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.naive_bayes import MultinomialNB
    except ImportError:
        raise UsageError(
            "scikit-learn is missing; install it with: pip install scikit-learn"
        ) from None
    return {
        "logistic regression": LogisticRegression(C=10, max_iter=1000),
        "naive Bayes": MultinomialNB(alpha=0.1),
    }


def measure(train: Sequence[Line], test: Sequence[Line]) -> dict[str, Measures]:
    """Return what each classifier reaches on the tf-idf of n-grams of characters."""
    classifiers = make_classifiers()
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer="char", lowercase=False, ngram_range=(1, LONGEST))
    xs, ys = (
        vectorizer.fit_transform([line.text for line in train]),
        [line.target for line in train],
    )
    test_xs, truth = (
        vectorizer.transform([line.text for line in test]),
        [line.target for line in test],
    )
    found = {}
    for name, classifier in classifiers.items():
        found[name] = measure_labels(classifier.fit(xs, ys).predict(test_xs).tolist(), truth)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="checkpoint of a run with --predict label")
    parser.add_argument("files", type=Path, nargs="*", help="files of the run, in its order")
    given = parser.parse_args()
    try:
        train, test = read_splits(given.model, given.files)
        run_measures = require_run(read_state(given.model), given.model).measures
        rows = {
            **run_measures,
            **{f"scikit-learn, {k}": v for k, v in measure(train, test).items()},
        }
    except CharrnnError as e:
        sys.exit(f"baselines.py: {e}")
    print(f"{len(train):,} training lines, {len(test):,} test lines\n")
    print("| method | accuracy | macro F1 |\n|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | {row['accuracy']:.4f} | {row['macro_f1']:.4f} |")


if __name__ == "__main__":
    main()
