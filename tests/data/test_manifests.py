"""Manifests are made again exactly when something changed.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
import os

import pytest

from speechbrain_ee.data import preparation
from speechbrain_ee.data.corpora import prepare_librispeech
from speechbrain_ee.errors import InputError
from speechbrain_ee.files import whole_file
from tests.data.corpora import add, ids_of, rows_of, spoil


@pytest.fixture
def prepared(corpus, save, monkeypatch):
    """Call with options; says whether audio was looked at."""
    looked = []

    def check_all(paths, title):
        looked.extend(paths)
        return real(paths, title)

    real = preparation.check_all
    monkeypatch.setattr(preparation, "check_all", check_all)

    def call(*splits, **options):
        looked.clear()
        reports = prepare_librispeech(corpus, save, *splits, **options)
        return bool(looked), reports

    return call


def test_unchanged_corpus_is_left_alone(prepared, corpus, save, caplog):
    add(corpus / "dev", "7-1-0001", "")
    first, reports = prepared("train", "dev")
    before = {path: path.read_bytes() for path in save.iterdir()}
    with caplog.at_level(logging.INFO):
        again, same = prepared("train", "dev")
    assert (first, again) == (True, False)
    assert same == reports
    assert same["dev"].skipped == {"empty transcript": ("7-1-0001",)}
    assert {path: path.read_bytes() for path in save.iterdir()} == before
    assert "up to date" in caplog.text


@pytest.mark.parametrize(
    "options",
    [
        {"select_n_sentences": 1},
        {"max_duration_s": 3.0},
        {"min_duration_s": 0.1},
        {"merge_lst": ["train", "dev"], "merge_name": "both"},
        {"te_splits": "test"},
    ],
)
def test_other_arguments_prepare_again(prepared, options):
    prepared("train", "dev")
    assert prepared("train", "dev", **options)[0]


def touch_later(path):
    """Give a file a newer modification time, whatever the clock's grain."""
    newer = os.stat(path).st_mtime_ns + 10**12
    os.utime(path, ns=(newer, newer))


@pytest.mark.parametrize(
    "change",
    [
        lambda corpus, save: touch_later(corpus / "dev/7/1/7-1.trans.txt"),
        lambda corpus, save: add(corpus / "train", "9-1-0007", "NEW"),
        lambda corpus, save: (corpus / "train/12/3/12-3-0000.wav").unlink(),
        lambda corpus, save: (save / "dev.csv").unlink(),
        lambda corpus, save: (save / "prepare.json").unlink(),
        lambda corpus, save: (save / "prepare.json").write_text("{"),
        lambda corpus, save: (save / "prepare.json").write_text("[]"),
    ],
)
def test_a_change_prepares_again(prepared, corpus, save, change):
    prepared("train", "dev")
    change(corpus, save)
    assert prepared("train", "dev")[0]
    assert not prepared("train", "dev")[0]


def test_a_new_version_prepares_again(prepared, monkeypatch):
    prepared("train")
    monkeypatch.setattr(preparation, "__version__", "next")
    assert prepared("train")[0]


def test_a_failed_call_does_not_vouch_for_a_mixture(prepared, corpus, save):
    prepared("train", "dev")
    spoil(corpus / "test/8/1/8-1-0000.flac", b"broken")
    with pytest.raises(InputError, match="nothing of the split test"):
        prepared("train", "dev", "test", select_n_sentences=1)
    assert len(rows_of(save / "train.csv")) == 1
    assert prepared("train", "dev")[0]
    assert len(rows_of(save / "train.csv")) == 5


def test_mended_corpus_loses_its_list_of_skipped(corpus, save):
    add(corpus / "dev", "7-1-0001", "MENDED", None)
    prepare_librispeech(corpus, save, dev_splits="dev")
    assert ids_of(save / "dev.skipped.csv") == ["7-1-0001"]
    add(corpus / "dev", "7-1-0001", None)
    prepare_librispeech(corpus, save, dev_splits="dev")
    assert not (save / "dev.skipped.csv").exists()


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.csv"
    path.write_text("old")
    with (
        pytest.raises(KeyboardInterrupt),
        whole_file(path, text=True) as stream,
    ):
        stream.write("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
