"""Preparation: manifests hold what is usable, reports name the rest.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from speechbrain.dataio.dataset import DynamicItemDataset

from speechbrain_ee.data import corpora, preparation
from speechbrain_ee.data.corpora import prepare_librispeech
from speechbrain_ee.data.manifests import check_audio
from speechbrain_ee.data.preparation import split_names
from speechbrain_ee.data.preparation import test_set_manifests as sets_of
from speechbrain_ee.errors import InputError
from tests.data.corpora import RATE, add, ids_of, rows_of, spoil, tone


def test_all_formats_have_their_true_duration_in_order_of_ids(corpus, save):
    reports = prepare_librispeech(corpus, save, ["train"], "dev", ("test",))
    rows = rows_of(save / "train.csv")
    assert list(rows[0]) == ["ID", "duration", "wav", "spk_id", "wrd"]
    expected = [(f"12-3-000{n}", float(n + 1), "12", "A B") for n in range(4)]
    expected.append(("9-1-0000", 1.0, "9", "C"))
    assert expected == [
        (row["ID"], float(row["duration"]), row["spk_id"], row["wrd"])
        for row in rows
    ]
    assert rows[0]["wav"] == str(corpus / "train/12/3/12-3-0000.wav")
    assert list(reports) == ["train", "dev", "test"]
    assert reports["train"].utterances == 5
    assert reports["train"].hours == pytest.approx(11 / 3600)
    assert all(not report.skipped for report in reports.values())
    assert not list(save.glob("*.skipped.csv"))


def test_every_reason_to_skip_is_found_and_reported(corpus, save, caplog):
    train = corpus / "train"
    add(train, "12-3-0100", None)
    (corpus / "train" / "stray.wav").write_bytes(b"")
    add(train, "12-3-0101", "NO AUDIO", None)
    add(train, "12-3-0102", "")
    spoil(add(train, "12-3-0103", "NOISE", suffix="wav"), b"no audio here")
    spoil(add(train, "12-3-0104", "NOTHING", suffix="wav"), b"")
    add(train, "12-3-0105", "NO FRAMES", 0.0, "wav")
    cut = add(train, "12-3-0106", "HALF A FILE", 5.0)
    spoil(cut, cut.read_bytes()[: cut.stat().st_size // 2])
    for name, value in (("12-3-0107", np.nan), ("12-3-0108", np.inf)):
        wave = tone(1.0)
        wave[-7] = value
        path = add(train, name, "NOT A NUMBER", None, "wav")
        soundfile.write(path, wave, RATE, "FLOAT")
    fine = add(train, "12-3-0109", "FLOATS ARE FINE", None, "wav")
    soundfile.write(fine, tone(1.0), RATE, "DOUBLE")
    add(train, "12-3-0110", "X" * 36)
    add(train, "12-3-0111", "X" * 35)
    add(train, "12-3-0112", "LONG", 6.0)
    add(train, "12-3-0113", "HI", 0.25)
    add(train, "12-3-0000", "A SECOND LINE", None)
    add(train, "9-1-0000", None, suffix="wav")
    add(train, "12-3-0114", "FOR $5 ONLY")
    with caplog.at_level(logging.INFO):
        report = prepare_librispeech(
            corpus,
            save,
            "train",
            min_duration_s=0.5,
            max_duration_s=5.0,
        )["train"]
    expected = {
        "missing transcript": ("12-3-0100", "stray"),
        "missing audio": ("12-3-0101",),
        "empty transcript": ("12-3-0102",),
        "unreadable audio": ("12-3-0103", "12-3-0106"),
        "empty audio": ("12-3-0104", "12-3-0105"),
        "samples not finite": ("12-3-0107", "12-3-0108"),
        "too short for its transcript": ("12-3-0110",),
        "longer than max_duration_s": ("12-3-0112",),
        "shorter than min_duration_s": ("12-3-0113",),
        "duplicate id": ("12-3-0000", "9-1-0000"),
    }
    assert dict(report.skipped) == expected
    kept = [f"12-3-000{n}" for n in range(4)]
    kept += ["12-3-0109", "12-3-0111", "12-3-0114", "9-1-0000"]
    assert ids_of(save / "train.csv") == kept
    listed = rows_of(save / "train.skipped.csv")
    assert {(row["ID"], row["reason"]) for row in listed} == {
        (name, reason) for reason, names in expected.items() for name in names
    }
    assert all(Path(row["path"]).is_file() for row in listed)
    assert "train: 8 utterances, 0.00 h, 15 left out" in caplog.text
    warnings = [r.getMessage() for r in caplog.records if r.levelno == 30]
    assert len(warnings) == len(expected)
    assert any("2 left out, unreadable audio: 12-3-0103" in w for w in warnings)


def test_limits_on_the_duration_are_for_training_alone(corpus, save):
    """The limits themselves pass."""
    options = {"min_duration_s": 1.0, "max_duration_s": 3.0}
    add(corpus / "test", "8-1-0001", "LONG", 4.0)
    splits = {"tr_splits": "train", "te_splits": "test"}
    reports = prepare_librispeech(corpus, save, **splits, **options)
    left_out = {"longer than max_duration_s": ("12-3-0003",)}
    assert reports["train"].skipped == left_out
    assert reports["test"].utterances == 2


def test_text_survives_the_manifest_and_speechbrain_reads_it(tmp_path, save):
    texts = ['SAID "NO", THEN', "L'ÉTÉ  À\tDEUX", "$ ALONE, 5$", '"']
    split = tmp_path / "a, b" / "dev"
    for number, text in enumerate(texts):
        add(split, f"1-1-000{number}", text)
    prepare_librispeech(split.parent, save, dev_splits="dev")
    data = DynamicItemDataset.from_csv(
        save / "dev.csv", output_keys=["id", "wrd", "wav", "duration"]
    )
    words = {item["id"]: item["wrd"] for item in data}
    assert list(words.values()) == [" ".join(text.split()) for text in texts]
    assert all(check_audio(one["wav"]) == (1.0, None) for one in data)


def test_transcripts_from_other_editors_are_read(corpus, save):
    path = corpus / "dev/7/1/7-1.trans.txt"
    path.write_bytes(b"\xef\xbb\xbf7-1-0000 D D \r\n\r\n")
    prepare_librispeech(corpus, save, dev_splits="dev")
    assert [row["wrd"] for row in rows_of(save / "dev.csv")] == ["D D"]


def test_other_rates_stereo_hidden_files_and_capitals(corpus, save):
    folder = corpus / "dev/7/1"
    soundfile.write(folder / "7-1-0000.flac", tone(1.0, 2), 8000)
    (folder / "._7-1-0000.flac").write_bytes(b"finder")
    add(corpus / "dev", "7-1-0001", "CAPITAL").rename(folder / "7-1-0001.FLAC")
    report = prepare_librispeech(corpus, save, dev_splits="dev")["dev"]
    assert not report.skipped
    lengths = [float(row["duration"]) for row in rows_of(save / "dev.csv")]
    assert lengths == [2.0, 1.0]


def test_links_are_followed_but_not_in_a_circle(corpus, save):
    shutil.move(corpus / "train/9", corpus / "elsewhere")
    os.symlink(corpus / "elsewhere", corpus / "train/9")
    os.symlink(corpus / "train", corpus / "train/12/loop")
    report = prepare_librispeech(corpus, save, "train")["train"]
    assert report.utterances == 5
    assert not report.skipped


@pytest.mark.parametrize(
    ("numbers", "counts"), [(2, (2, 1)), ([3, 1], (3, 1)), (99, (5, 1))]
)
def test_select_takes_the_first_usable(corpus, save, numbers, counts):
    (corpus / "train/12/3/12-3-0000.wav").write_bytes(b"broken")
    add(corpus / "train", "9-1-0001", "LAST")
    reports = prepare_librispeech(
        corpus, save, "train", "dev", select_n_sentences=numbers
    )
    assert tuple(one.utterances for one in reports.values()) == counts
    first = ["12-3-0001", "12-3-0002", "12-3-0003", "9-1-0000", "9-1-0001"]
    assert ids_of(save / "train.csv") == first[: counts[0]]


@pytest.mark.parametrize("merge_name", ["all.csv", "all"])
def test_merge_joins_splits_and_reports_common_ids(corpus, save, merge_name):
    add(corpus / "dev", "12-3-0002", "SAME ID")
    reports = prepare_librispeech(
        corpus,
        save,
        ["train", "dev"],
        merge_lst=["train", "dev"],
        merge_name=merge_name,
    )
    rows = rows_of(save / "all.csv")
    ids = [row["ID"] for row in rows]
    assert ids == sorted(ids_of(save / "train.csv") + ["7-1-0000"])
    assert rows[2]["wrd"] == "A B"
    assert reports["all"].utterances == 6
    assert reports["all"].skipped == {"duplicate id": ("12-3-0002",)}
    assert ids_of(save / "all.skipped.csv") == ["12-3-0002"]


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("LibriSpeech", {"train-clean-100": 65, "test-clean": 4}),
        ("digits", {"train": 1800, "dev": 180, "test": 300}),
        ("english5h", {"train": 4247, "dev": 240, "test": 1198}),
    ],
)
def test_real_corpora_lose_nothing(shared_folder, save, name, counts):
    folder = shared_folder / "corpora" / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    reports = prepare_librispeech(folder, save, list(counts))
    assert {one.split: one.utterances for one in reports.values()} == counts
    assert all(not one.skipped for one in reports.values())


# ---- What the user can get wrong -------------------------------------------


def test_nothing_usable_names_reasons_and_the_list(corpus, save):
    spoil(corpus / "dev/7/1/7-1-0000.flac", b"broken")
    save.mkdir()
    (save / "dev.csv").write_text("of an earlier corpus")
    with pytest.raises(InputError, match="1 unreadable audio.*skipped.csv"):
        prepare_librispeech(corpus, save, dev_splits="dev")
    assert ids_of(save / "dev.skipped.csv") == ["7-1-0000"]
    assert not (save / "dev.csv").exists()


@pytest.mark.parametrize(
    ("folder", "split", "message"),
    [
        ("corpus/none", "train", r"data_folder: .*none is not a folder"),
        ("corpus", "train2", r"no split 'train2'; the splits there are dev, "),
        (".", "train", r"one level down: pass data_folder=.*/corpus\."),
        ("corpus/dev", "train", r"one level up: pass data_folder=.*/corpus\."),
        ("corpus/dev/7", "x", r"no folder there has the expected layout"),
        (".", "corpus", r"'train' is the split, pass data_folder=.*/corpus"),
        ("corpus", "bare", r"bare holds no \*.trans.txt file; the layout"),
        ("corpus", "../none/dev", r"'../none/dev' is the path /.*none/dev, wh"),
        ("corpus", "..", r"'..' is not the name of one folder"),
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
        ({"select_n_sentences": [1]}, "one for each of the 2 splits"),
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
    monkeypatch.setattr(corpora.os, "scandir", scandir)
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


# ---- Made again exactly when something changed -----------------------------


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


# ---- Splits of other corpora -----------------------------------------------


@pytest.fixture
def other(corpus):
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
    assert sets_of(options(**changes)) == expected


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
        sets_of(options(**changes))
