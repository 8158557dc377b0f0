"""``charrnn eval``."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import charrnn
from charrnn.storage import checkpoint
from tests.conftest import QUICK, Cli, read_run


@pytest.mark.parametrize(
    "options",
    ["", "--unit jamo", "--documents line", "--unit byte", "--unit word", "--val-file val.txt"],
)
def test_split_has_the_loss_that_training_reported(cli: Cli, options: str) -> None:
    words = ["가나다", "한글은", "é", "the", "각각"]
    rng = np.random.default_rng(0)
    for name, n in (("corpus", 900), ("val", 100)):
        lines = "".join(" ".join(rng.choice(words, 4)) + "\n" for _ in range(n))
        Path(f"{name}.txt").write_text(lines, encoding="utf-8")
    cli("train", "corpus.txt", *QUICK, *options.split(), "-q", "--eval-every", "7")
    state = read_run(Path("checkpoints/corpus.npz"))
    assert state.best["val_loss"] < state.history[0]["val_loss"]
    for split, loss in (("val", state.best["val_loss"]), ("test", state.test_loss)):
        row = json.loads(cli("eval", "--split", split, "--json").stdout)
        assert row["nats"] == pytest.approx(loss, rel=1e-7)  # of float32
        assert row["characters"] == state.corpus["split_characters"][split]
        assert row["bits"] == pytest.approx(loss / math.log(2))
        assert row["perplexity"] == pytest.approx(math.exp(loss))
        assert row["bits_per_byte"] == pytest.approx(row["bits"] * row["characters"] / row["bytes"])
        baselines = state.baselines[split]
        assert row["baselines"] == baselines
        out = cli("eval", "--split", split).stdout.decode()
        unit = "byte" if "byte" in options else "character"
        assert f"{loss:.4f} nats ({row['bits']:.3f} bits) per {unit}, " in out
        best = min(baselines, key=baselines.get)
        assert out.endswith(f"; best baseline {best} {baselines[best]:.3f}, model {loss:.3f}\n")
    row = json.loads(cli("eval", "--split", "val", "--json", "--last").stdout)
    assert row["nats"] == pytest.approx(state.history[-1]["val_loss"], rel=1e-7)


def test_each_file_has_a_line(cli: Cli, run: Path, text: str) -> None:
    Path("new.txt").write_text("The king shall nöt come.\n")
    done = cli("eval", run, "corpus.txt", "new.txt", "-", stdin=text.encode())
    out = done.stdout.decode().splitlines()
    assert [line.split(":")[0] for line in out] == ["corpus.txt", "new.txt", "-"]
    model = charrnn.load(run)
    nats = model.nll(text).mean()
    for line in (out[0], out[2]):
        assert f"{nats:.4f} nats ({nats / math.log(2):.3f} bits) per character" in line
    rest = model.nll("The king shall nöt come.\n", unknown="cost")
    assert rest[16] == math.log(0x110000)
    assert f"{rest.mean():.4f} nats" in out[1]


def test_dynamic_evaluation_helps_where_the_text_has_changed(cli: Cli, run: Path) -> None:
    Path("new.txt").write_text("and the sea and the sea and the night\n" * 60)
    before = run.read_bytes()
    fixed = json.loads(cli("eval", "new.txt", "--json").stdout)
    adapted = json.loads(cli("eval", "new.txt", "--json", "--adapt").stdout)
    assert adapted["nats"] == fixed["nats"]  # the network's own
    assert adapted["adapted"] < 0.9 * fixed["nats"]
    assert fixed["mixed"] / 1.01 < fixed["counts"] < 0.5 * fixed["nats"]
    assert adapted["mixed"] < 1.01 * fixed["mixed"]
    assert run.read_bytes() == before


def test_diverged_model_has_no_perplexity(cli: Cli, run: Path) -> None:
    state, arrays = checkpoint.read_checkpoint(run)
    checkpoint.write_checkpoint(
        run, state, {**arrays, "best_weights": arrays["best_weights"] * 1e5}
    )
    assert b"perplexity above 1e+304; " in cli("eval", "corpus.txt").stdout
    row = json.loads(cli("eval", "corpus.txt", "--json").stdout)
    assert row["nats"] > 1000
    assert row["perplexity"] is None
    (first, *_) = cli("score", "corpus.txt", "--json").stdout.splitlines()
    assert json.loads(first)["bits"] > 1000


@pytest.mark.parametrize(
    ("args", "rc", "message"),
    [
        ((), 2, "give either FILE"),
        (("corpus.txt", "--split", "val"), 2, "give either FILE"),
        (("-", "-"), 2, "can be given only once"),
        (("nothing.txt",), 3, "nothing.txt: no such file"),
        (("nothing.npz", "corpus.txt"), 4, "nothing.npz: no such file"),
        (("weights.npz", "--split", "val"), 4, "an exported model"),
        (("stdin.npz", "--split", "val"), 4, "was trained on standard input"),
        (("small.npz", "--split", "val"), 2, "the run has no validation split"),
        (("checkpoints/changed.npz", "--split", "val"), 4, "trained on a different text"),
    ],
)
def test_text_that_cannot_be_evaluated_is_an_error(
    cli: Cli, run: Path, args: tuple[str, ...], rc: int, message: str
) -> None:
    if args[:1] == ("weights.npz",):
        cli("export", run, "-o", "weights.npz")
    elif args[:1] == ("stdin.npz",):
        cli("train", "-", *QUICK, "-q", "-o", "stdin.npz", stdin=b"abc\n" * 500)
    elif args[:1] == ("small.npz",):
        Path("small.txt").write_text("abc\n" * 9)
        cli("train", "small.txt", *QUICK, "-q", "-o", "small.npz")
    elif args[:1] == ("checkpoints/changed.npz",):
        run.rename(run.with_name("changed.npz"))
        Path("corpus.txt").write_text("another text\n" * 100)
    assert message in cli("eval", *args, rc=rc).stderr.decode().splitlines()[-1]


def test_unknown_characters_are_reported(cli: Cli, run: Path) -> None:
    Path("texts").mkdir()
    Path("texts/a.txt").write_text("The king.\n")
    Path("texts/b.txt").write_text("한국 king", encoding="utf-8")
    done = cli("eval", "texts", "--json")
    a, b = map(json.loads, done.stdout.splitlines())
    assert (a["file"], a["unknown"]) == ("texts/a.txt", 0)
    assert (b["file"], b["unknown"]) == ("texts/b.txt", pytest.approx(2 / 7))
    warning = "29% of the characters of texts/b.txt are unknown to checkpoints/corpus.npz: wrong"
    assert warning in done.stderr.decode()
    out = cli("eval", "texts").stdout.decode().splitlines()
    assert "unknown" not in out[0]
    assert out[1].endswith("; 28.6% of the characters are unknown to the model")
