"""The splits of a text, and the text of a saved run: recorded, found and read again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from charrnn.config import Config
from charrnn.errors import CheckpointError, TextError
from charrnn.storage.checkpoint import read_state
from charrnn.text.corpus import Corpus
from charrnn.training import splits as splits_module
from charrnn.training.run import begin, resume, save
from charrnn.training.splits import splits_of, text_of
from tests.conftest import QUICK, Cli, read_run

SMALL: dict[str, Any] = {"hidden_size": 4, "max_steps": 3}


def test_separate_validation_text_shares_the_vocabulary(text: str) -> None:
    run = begin(Corpus("text", text), Config(**SMALL), val=Corpus("val", "The king é.\n"))
    train = len(text) - 5 * len(text) // 100 - (5 * len(text) % 100 > 0)
    assert len(run.splits.train) == train
    assert len(run.splits.val.ids) == 12
    assert "é" in run.vocabulary.symbols
    expected = {"train": train, "val": 12, "test": len(text) - train}
    assert run.state.corpus["split_characters"] == expected


def test_only_the_beginning_of_a_long_validation_text_is_used(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("charrnn.tasks.language", "charrnn.training.notes"):
        monkeypatch.setattr(f"{module}.MAX_EVAL_CHARACTERS", 100)
    run = begin(Corpus("text", text), Config(**SMALL), val=Corpus("val", "the king\n" * 50))
    assert run.splits.val.characters == len(run.splits.val.ids) == 100
    assert "validating on the first 100 characters of val" in run.state.notes


def test_text_without_training_split_is_rejected(text: str) -> None:
    with pytest.raises(TextError, match="text: no characters left for training; lower --val-fract"):
        begin(Corpus("text", text[:131]), Config(val_fraction=0.5, test_fraction=0.49))


# --- the text of a saved run ---


@pytest.mark.parametrize("unit", ["char", "byte", "jamo", "word"])
@pytest.mark.parametrize("documents", [None, "line", "file"])
def test_text_of_a_saved_run_is_read_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str, documents: str | None
) -> None:
    """150 files, one of them called -, and a folder to validate on; then all is moved."""
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in ("poems", "val"):
        (old / folder).mkdir(parents=True)
        for i in range(150):
            (old / folder / f"{i}.txt").write_text(f"{folder} 하나 {i}\n" * 3, encoding="utf-8")
    (old / "poems" / "binary").write_bytes(b"\0\xff")
    (old / "poems" / "-").write_text("the file called -\n")
    monkeypatch.chdir(old / "poems")
    options: dict[str, Any] = {"unit": unit, "documents": documents}
    corpus = Corpus("text", paths=["."], **options)
    val = Corpus("text", paths=["../val"], **options)
    assert len(corpus.files) == 151 + (unit == "byte")
    config, path = Config(**SMALL, **options), old / "runs" / "run.npz"
    run = begin(corpus, config, val=val)
    save(run, path)

    files = read_run(path).corpus["files"]
    assert ("../poems/-", 18) in [file[:2] for file in files]
    assert all(name.startswith("../poems/") for name, _, _ in files)
    monkeypatch.chdir(tmp_path)
    old.rename(new)
    path = new / "runs" / "run.npz"
    again, val_again = text_of(read_state(path), path)
    assert again.sha256 == corpus.sha256
    assert val_again
    assert val_again.sha256 == val.sha256
    assert again.files[0].name.startswith("new/poems/")
    splits = splits_of(read_state(path), path)
    assert (splits.train[:] == run.splits.train[:]).all()
    for a, b in ((splits.val, run.splits.val), (splits.test, run.splits.test)):
        assert (a.ids == b.ids).all()
        assert (a.context == b.context).all()
        assert (a.characters, a.separator_id) == (b.characters, b.separator_id)
    resumed = resume(path)
    assert (resumed.state.step, resumed.state.corpus["num_files"]) == (0, len(corpus.files))


def test_texts_are_found_from_a_link_to_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths are relative to the folder of the checkpoint, not of a link to it."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "link").symlink_to("deep/er")
    (tmp_path / "link" / "-").write_text("some text\n" * 20)
    monkeypatch.chdir(tmp_path / "link")
    save(begin(Corpus("text", paths=["./-"]), Config(**SMALL)), Path("run.npz"))
    path = tmp_path / "run.npz"
    path.symlink_to("link/run.npz")
    assert read_run(path).corpus["files"][0][0] == "./-"
    monkeypatch.chdir(tmp_path)
    corpus, _ = text_of(read_state(path), path)
    assert corpus.files[0].name == "deep/er/-"


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("some text\n" * 20)
    Path("b.txt").write_text("more text\n" * 20)
    run = begin(
        Corpus("text", paths=["a.txt"]), Config(**SMALL), val=Corpus("text", paths=["b.txt"])
    )
    save(run, Path("run.npz"))
    return Path("run.npz")


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        ("rm a.txt", TextError, r"^a\.txt: no such file or directory"),
        ("rm b.txt", TextError, r"^b\.txt: no such file or directory"),
        ("rm a.txt; mkdir a.txt", TextError, r"^a\.txt: not a regular file"),
        ("rm a.txt; mkfifo a.txt", TextError, r"^a\.txt: not a regular file"),
        ("rm a.txt; ln -s /dev/zero a.txt", TextError, r"^a\.txt: not a regular file"),
        ("echo more >> a.txt", CheckpointError, r"text \(a\.txt changed from 200 to 205 bytes\)$"),
        ("echo more >> b.txt", CheckpointError, r"was validated on .*b\.txt changed from 200 to"),
        ("tr e o < b.txt > a.txt", CheckpointError, r"the contents of a\.txt changed \(same size"),
        ("tr e o < a.txt > b.txt", CheckpointError, r"the contents of b\.txt changed \(same size"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="a shell of POSIX")
def test_missing_or_changed_text_is_refused(
    saved: Path, damage: str, error: type[Exception], message: str
) -> None:
    assert os.system(damage) == 0
    for read in (lambda: text_of(read_state(saved), saved), lambda: resume(saved)):
        with pytest.raises(error, match=message):
            read()


@pytest.mark.parametrize("name", ["../a.txt\0", "x" * 5000, "/dev/zero", "."])
def test_names_in_a_hostile_checkpoint_open_nothing(saved: Path, name: str) -> None:
    state = read_run(saved)
    state.corpus["files"] = [(name, 200, 0)]
    with pytest.raises(TextError) as e:
        text_of(state, saved)
    assert str(e.value).isprintable()


def test_header_lists_the_files_that_fit(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = Corpus("text", paths=["a.txt"] * 100)
    monkeypatch.setattr(splits_module, "MAX_LISTED_BYTES", 1000)
    save(begin(corpus, Config(**SMALL)), saved)
    record = read_run(saved).corpus
    assert (len(record["files"]), record["num_files"]) == (14, 100)
    with pytest.raises(
        CheckpointError, match="was trained on 100 files, of which it lists 14; the"
    ):
        text_of(read_state(saved), saved)
    assert resume(saved, corpus).state.step == 0  # with the text, it can be resumed
    with pytest.raises(CheckpointError, match="number of files changed from 100 to 99"):
        resume(saved, Corpus("text", paths=["a.txt"] * 99))


def test_exported_model_and_text_in_memory_have_no_text(saved: Path, text: str) -> None:
    save(begin(Corpus("text", text), Config(**SMALL)), saved)
    with pytest.raises(
        CheckpointError, match="was trained on a text in memory, which is in no file"
    ):
        text_of(read_state(saved), saved)


# --- the commands ---


@pytest.mark.parametrize("folder", [True, False])
def test_run_with_validation_files_is_resumed_and_evaluated(
    cli: Cli, tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch, folder: bool
) -> None:
    """The validation text is a folder of 120 files, or standard input."""
    (tmp_path / "corpus.txt").write_text(text)
    (tmp_path / "val").mkdir()
    for i in range(120):
        (tmp_path / "val" / f"{i}.txt").write_text(f"The king {i % 7}.\n")
    val, stdin = ("val", b"") if folder else ("-", text[:500].encode())
    start = ("train", "corpus.txt", "--val-file", val, *QUICK, "--stop-after", "7")
    err = cli(*start, stdin=stdin).stderr.decode()
    resume = "charrnn train corpus.txt --resume" + " --val-file -" * (not folder)
    assert f"resume with:\n  {resume}\n" in err
    again = ["train", "corpus.txt", "--resume", "-q"]
    if not folder:
        err = cli(*again, rc=4).stderr.decode()
        assert "was validated on standard input or another pipe, which is gone" in err
        again += ["--val-file", "-"]
    cli(*again, stdin=stdin)
    path = tmp_path / "checkpoints" / "corpus.npz"
    state = read_run(path)
    assert state.finished

    # from another folder
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    if not folder:
        assert b"was validated on standard" in cli("eval", path, "--split", "val", rc=4).stderr
        return
    row = json.loads(cli("eval", path, "--split", "val", "--json").stdout)
    assert row["nats"] == state.best["val_loss"]
    cli("score", path, "../corpus.txt", "--quantile", "0.9")
    assert b"Omitted because" not in cli("report", path, "-o", "-").stdout
    assert f"\nfiles      {tmp_path}/corpus.txt\n" in cli("info", path).stdout.decode()


def test_resume_through_a_symbolic_link_updates_the_target(
    cli: Cli, corpus: Path, tmp_path: Path
) -> None:
    cli("train", "corpus.txt", *QUICK, "-q", "-o", "disk/run.npz", "--stop-after", "5")
    (tmp_path / "link.npz").symlink_to("disk/run.npz")
    cli("train", "corpus.txt", "-q", "-o", "link.npz", "--resume")
    assert (tmp_path / "link.npz").is_symlink()
    assert read_run(tmp_path / "disk" / "run.npz").finished
    row = json.loads(cli("eval", "link.npz", "--split", "val", "--json").stdout)
    assert row["nats"] == read_run(tmp_path / "disk" / "run.npz").best["val_loss"]


def test_resume_describes_the_change_of_the_text(cli: Cli, run: Path, tmp_path: Path) -> None:
    corpus, name = tmp_path / "corpus.txt", "checkpoints/corpus.npz"
    size = corpus.stat().st_size
    corpus.write_text(corpus.read_text() + "Ünd.\n")
    assert cli("train", "corpus.txt", "--resume", rc=4).stderr.decode() == (
        f"charrnn: {name}: was trained on a different text (corpus.txt changed from {size:,} to "
        f"{size + 6:,} bytes); to train on this one from its weights, use --init-from {name} "
        f"and -o NEW\n"
    )
