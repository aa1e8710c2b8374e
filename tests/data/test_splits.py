"""Splits of other corpora: their names, manifests and errors.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

import pytest

from speechbrain_ee.data import preparation as splits_of
from speechbrain_ee.data.corpora import prepare_librispeech
from speechbrain_ee.data.manifests import read_manifest
from speechbrain_ee.data.preparation import split_names
from speechbrain_ee.errors import InputError
from tests.data.corpora import add, ids_of, rows_of


@pytest.fixture
def other(corpus: Path) -> Path:
    """A second corpus beside the first, with a set of the same name."""
    for number in range(3):
        add(corpus.parent / "other" / "test", f"5-1-000{number}", "F G")
    return corpus.parent / "other"


@pytest.mark.parametrize("absolute", [False, True])
def test_a_split_of_another_corpus(corpus, other, save, absolute):
    path = str(other / "test") if absolute else "../other/test"
    splits = {"tr_splits": "train", "te_splits": ["test", path]}
    reports = prepare_librispeech(corpus, save, **splits)
    counts = {name: one.utterances for name, one in reports.items()}
    assert counts == {"train": 5, "test": 1, "other-test": 3}
    assert reports["other-test"].split == "other-test"
    assert ids_of(save / "test.csv") == ["8-1-0000"]
    rows = rows_of(save / "other-test.csv")
    assert [row["ID"] for row in rows] == [f"5-1-000{k}" for k in range(3)]
    assert all(Path(row["wav"]).parents[2] == other / "test" for row in rows)


def test_a_split_from_the_home_folder(corpus, other, save, monkeypatch):
    monkeypatch.setenv("HOME", str(corpus.parent))
    prepare_librispeech(corpus, save, te_splits="~/other/test")
    assert len(ids_of(save / "other-test.csv")) == 3


def test_training_on_two_corpora(corpus, other, save):
    splits = ["train", "../other/test"]
    options = {"merge_lst": splits, "merge_name": "all.csv"}
    reports = prepare_librispeech(corpus, save, splits, **options)
    assert reports["all"].utterances == 8
    assert set(ids_of(save / "all.csv")) == {
        *ids_of(save / "train.csv"),
        *ids_of(save / "other-test.csv"),
    }


def test_only_what_is_trained_on_is_cut(corpus, other, save):
    """A path among the training splits counts as one of them."""
    limits = {"min_duration_s": 2.5}
    paths = ["train", "../other/test"]
    with pytest.raises(InputError, match="nothing of the split other-test"):
        prepare_librispeech(corpus, save, paths, **limits)
    reports = prepare_librispeech(
        corpus, save, "train", te_splits=paths[1], **limits
    )
    assert reports["other-test"].utterances == 3


def test_the_same_name_elsewhere_is_not_up_to_date(corpus, other, save):
    """Equal listings at another place are other files."""
    prepare_librispeech(corpus, save, te_splits="../other/test")
    (corpus.parent / "moved").mkdir()
    moved = other.rename(corpus.parent / "moved" / "other")
    prepare_librispeech(corpus, save, te_splits="../moved/other/test")
    assert all(
        Path(row["wav"]).is_relative_to(moved)
        for row in rows_of(save / "other-test.csv")
    )


@pytest.mark.parametrize(
    ("splits", "names"),
    [
        (["test", "../b/test"], ["test", "b-test"]),
        (["./test", "test-clean/"], ["test", "test-clean"]),
        (["b/test", "/c/a/dev"], ["b-test", "a-dev"]),
        (["../x/../b/test", "/test"], ["b-test", "test"]),
    ],
)
def test_names(splits, names):
    assert list(split_names(Path("/c/a"), splits).values()) == names


def test_two_of_one_name_are_refused(corpus, other, save):
    add(corpus.parent / "else" / "other" / "test", "6-1-0000", "H")
    splits = ["../other/test", "../else/other/test"]
    with pytest.raises(InputError, match="both be written to other-test.csv"):
        prepare_librispeech(corpus, save, te_splits=splits)
    with pytest.raises(InputError, match="'test' and './test' would both"):
        prepare_librispeech(corpus, save, te_splits=["test", "./test"])
    assert not save.exists()


def test_a_dollar_sign_in_the_path_of_a_split(corpus, other, save):
    add(corpus.parent / "$other" / "test", "6-1-0000", "H")
    prepare_librispeech(corpus, save, te_splits="../$other/test")
    (row,) = read_manifest(save / "$other-test.csv").values()
    assert Path(row["wav"]).is_file() and "/$other/test/" in row["wav"]


def options(**changes):
    """The keys of a YAML that say what is tested."""
    return {
        "data_folder": "/c/a",
        "output_folder": "out",
        "test_splits": ["test", "../b/test"],
        "test_csv": ["out/test.csv"],
        "skip_prep": False,
    } | changes


@pytest.mark.parametrize(
    ("changes", "paths"),
    [
        ({}, ["out/test.csv", "out/b-test.csv"]),
        ({"skip_prep": True}, ["out/test.csv"]),
        ({"test_csv": "mine.csv"}, "mine.csv out/test.csv out/b-test.csv"),
        ({"test_csv": ["x/b-test.csv"]}, ["x/b-test.csv", "out/test.csv"]),
        ({"test_csv": None, "test_splits": "../b/test"}, ["out/b-test.csv"]),
        ({"test_csv": [], "test_splits": ["test"]}, ["out/test.csv"]),
        ({"test_splits": None}, ["out/test.csv"]),
        ({"test_splits": ["dev"]}, ["out/dev.csv"]),
        (
            {"test_csv": ["x/y.csv", "out/dev.csv"]},
            "x/y.csv out/test.csv out/b-test.csv",
        ),
    ],
)
def test_the_test_splits_are_what_is_tested(changes, paths):
    expected = paths.split() if isinstance(paths, str) else paths
    assert splits_of.test_set_manifests(options(**changes)) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_csv": ["a/x.csv", "b/x.csv"]}, "two manifests .* x.csv"),
        ({"test_csv": [], "test_splits": []}, "both are empty"),
        ({"test_csv": [], "skip_prep": True}, "both are empty"),
        ({"test_splits": [".."]}, "'..' is not the name"),
    ],
)
def test_test_sets_that_cannot_be(changes, message):
    with pytest.raises(InputError, match=message):
        splits_of.test_set_manifests(options(**changes))
