"""Preparation: what the user can get wrong, and what is said then.

Authors
 * The speechbrain-ee contributors 2026
"""

import os
import shutil

import pytest

from speechbrain_ee.data import corpora as layout
from speechbrain_ee.data.corpora import prepare_librispeech
from speechbrain_ee.errors import InputError
from tests.data.corpora import add, ids_of, spoil


def test_nothing_usable_names_reasons_and_the_list(corpus, save):
    spoil(corpus / "dev/7/1/7-1-0000.flac", b"broken")
    save.mkdir()
    (save / "dev.csv").write_text("of an earlier corpus")
    with pytest.raises(InputError, match="1 unreadable audio.*skipped.csv"):
        prepare_librispeech(corpus, save, dev_splits="dev")
    assert ids_of(save / "dev.skipped.csv") == ["7-1-0000"]
    assert not (save / "dev.csv").exists()


def test_transcripts_without_a_line_are_an_error(corpus, save):
    shutil.rmtree(corpus / "dev")
    add(corpus / "dev", "7-1-0000", None, None)
    (corpus / "dev/7/1/7-1.trans.txt").touch()
    with pytest.raises(InputError, match="split dev have no lines"):
        prepare_librispeech(corpus, save, dev_splits="dev")


@pytest.mark.parametrize(
    ("folder", "split", "message"),
    [
        ("corpus/none", "train", r"data_folder: .*none is not a folder"),
        ("corpus", "train2", r"no split 'train2'; the splits there are dev, "),
        (".", "train", r"one level down: pass data_folder=.*/corpus\."),
        (".", "train2", r"splits one level down: try .*/corpus\."),
        ("corpus/dev", "train", r"one level up: pass data_folder=.*/corpus\."),
        ("corpus/dev", "dev", r"one level up: pass data_folder=.*/corpus\."),
        ("corpus/dev/7", "x", r"no folder there has the expected layout"),
        (".", "corpus", r"'train' is the split, pass data_folder=.*/corpus"),
        ("corpus/train", "9", r"'train' is the split, pass data_folder=.*/co"),
        ("corpus", "bare", r"bare holds no \*.trans.txt file; the layout"),
        ("corpus", "dev/7", r"'dev' is the split, pass data_folder=.*/corpus"),
        ("corpus", "../none/dev", r"'../none/dev' is the path /.*none/dev, wh"),
        ("corpus", "..", r"'..' is not the name of one folder"),
        ("corpus", "/", r"'/' is not the name of one folder"),
        ("none", "../x/dev", r"'../x/dev' is the path /.*/x/dev, where no"),
        ("corpus", "", r"'' is not the name of one folder"),
        ("corpus", (), r"tr_splits, dev_splits, te_splits: all are empty"),
    ],
)
def test_wrong_places_are_told_the_right_one(
    corpus, save, folder, split, message
):
    # Only train is below the top: which split is named must not be chance.
    if split == "corpus":
        shutil.rmtree(corpus / "dev")
        shutil.rmtree(corpus / "test")
    (corpus / "bare/1/2").mkdir(parents=True)
    (corpus / "bare/1/2/1-2-0000.flac").write_bytes(b"")
    with pytest.raises(InputError, match=message):
        prepare_librispeech(corpus.parent / folder, save, split)
    assert not save.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"select_n_sentences": [1]}, "1 numbers for 2 splits"),
        ({"select_n_sentences": 0}, "select_n_sentences.*positive"),
        ({"max_duration_s": 1, "min_duration_s": 1}, "max_duration_s: 1"),
        ({"merge_lst": ["test"], "merge_name": "a"}, "merge_lst: test not"),
        ({"merge_lst": ["dev"]}, "merge_name: None"),
        ({"merge_lst": ["dev"], "merge_name": "a/b"}, "merge_name: 'a/b'"),
        ({"merge_lst": ["dev"], "merge_name": "train.csv"}, "split train"),
    ],
)
def test_wrong_options_are_named(corpus, save, options, message):
    with pytest.raises(InputError, match=message):
        prepare_librispeech(corpus, save, "train", "dev", **options)
    assert not save.exists()


def test_a_transcript_that_is_not_utf8_is_named(corpus, save):
    path = corpus / "dev/7/1/7-1.trans.txt"
    path.write_bytes("7-1-0000 É".encode("latin-1"))
    with pytest.raises(InputError, match=r"7-1\.trans\.txt.*UTF-8"):
        prepare_librispeech(corpus, save, dev_splits="dev")


def test_an_unreadable_folder_is_an_error(corpus, save, monkeypatch):
    # Permissions do not stop the superuser, whom tests may run as.
    def scandir(folder):
        if str(folder).endswith("train/9"):
            raise PermissionError(13, "Permission denied")
        return real(folder)

    real = os.scandir
    monkeypatch.setattr(layout.os, "scandir", scandir)
    with pytest.raises(InputError, match=r"train/9 cannot be read \(Perm"):
        prepare_librispeech(corpus, save, "train")


def test_an_unwritable_save_folder_is_named(corpus, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=f"save_folder: {folder}"):
            prepare_librispeech(corpus, folder, "train")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="cannot be written.*No space left"):
        prepare_librispeech(corpus, tmp_path / "save", "train")
    assert not list((tmp_path / "save").iterdir())
