"""Preparation: manifests hold what is usable and reports name the rest.

Authors
 * The speechbrain-ee contributors 2026
"""

import importlib
import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from speechbrain.dataio.dataset import DynamicItemDataset

from speechbrain_ee.data import corpora as prepare
from speechbrain_ee.data.clips import check_audio
from speechbrain_ee.data.corpora import prepare_librispeech
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


def test_of_two_with_one_id_the_first_is_kept(corpus, save):
    add(corpus / "dev", "7-1-0000", "AGAIN", suffix="wav")
    prepare_librispeech(corpus, save, dev_splits="dev")
    (row,) = rows_of(save / "dev.csv")
    assert (row["wrd"], Path(row["wav"]).suffix) == ("D", ".flac")
    assert len(rows_of(save / "dev.skipped.csv")) == 2


def test_limits_on_the_duration_leave_test_sets_whole(corpus, save):
    add(corpus / "test", "8-1-0001", "LONG", 3.0)
    options = {"te_splits": "test", "max_duration_s": 2.0}
    assert prepare_librispeech(corpus, save, **options)["test"].utterances == 2
    options = {"tr_splits": "test", "max_duration_s": 2.0}
    assert prepare_librispeech(corpus, save, **options)["test"].utterances == 1


def test_limits_on_the_duration_themselves_pass(corpus, save):
    options = {"min_duration_s": 1.0, "max_duration_s": 3.0}
    report = prepare_librispeech(corpus, save, "train", **options)["train"]
    assert report.skipped == {"longer than max_duration_s": ("12-3-0003",)}


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
    assert all(check_audio(one["wav"]).duration_s == 1.0 for one in data)


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


def test_merging_a_split_into_itself_changes_nothing(corpus, save):
    options = {"merge_lst": ["train"], "merge_name": "train.csv"}
    reports = prepare_librispeech(corpus, save, "train", **options)
    assert list(reports) == ["train"]
    assert len(rows_of(save / "train.csv")) == 5


def test_skip_prep_touches_nothing(save):
    assert prepare_librispeech("/no/such", save, "x", skip_prep=True) == {}
    assert not save.exists()


def test_recipe_imports_it_by_its_own_name(
    repository, corpus, save, monkeypatch
):
    recipe = repository / "recipes" / "LibriSpeech" / "EarlyExit"
    link = recipe / "librispeech_prepare.py"
    assert link.is_symlink()
    assert not os.path.isabs(os.readlink(link))
    assert link.resolve() == Path(prepare.__file__).resolve()
    monkeypatch.syspath_prepend(str(recipe))
    module = importlib.import_module("librispeech_prepare")
    reports = module.prepare_librispeech(corpus, save, "dev")
    assert reports["dev"].utterances == 1


def test_fingerprint_is_plain_json(corpus, save):
    prepare_librispeech(corpus, save, "train")
    stored = json.loads((save / "prepare.json").read_text())
    assert set(stored) == {"fingerprint", "reports"}
    audio, transcripts, _ = stored["fingerprint"]["corpus"]["train"]
    assert (audio, transcripts) == (5, 2)


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
