"""A manifest's columns are honoured, or the manifest is refused.

Traps avoided: ``start`` and ``stop`` that nobody reads, so that a segment
becomes the whole recording; durations in milliseconds, or of other files;
relative paths that count from wherever the command was started; a file that is
missed when its batch comes, after hours.

Authors
 * The speechbrain-ee contributors 2026
"""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechbrain_ee.data import preparation as splits_of
from speechbrain_ee.data.batches import make_datasets
from speechbrain_ee.data.manifests import Clip, check_rows, read_manifest
from speechbrain_ee.data.shards import write_shards
from speechbrain_ee.data.tokens import make_tokenizer
from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.recordings import read_spoken
from tests.data.corpora import rows_of

RATE = 8000
WAVE = np.arange(2 * RATE) / (4 * RATE)  # every sample tells where it is
HEADER = "ID,duration,wav,start,stop,spk_id,wrd\n"
SEGMENTS = HEADER + (
    "u1,0.5,talk.wav,4000,8000,s,A B\nu2,1.0,talk.wav,8000,16000,s,B A\n"
    "u3,2.0,talk.wav,,,s,A A\n"
)
STARTS = {"u1": 4000, "u2": 8000, "u3": 0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recording of two seconds."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    soundfile.write(folder / "talk.wav", WAVE, RATE, "PCM_16")
    return folder


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    """A manifest beside the recording."""
    path = folder / "mine.csv"
    path.write_bytes(text.encode(encoding))
    return path


def options(path: Path) -> dict:
    """The keys that data sets are made of."""
    return {
        "save_folder": str(path.parent / "save"),
        "data_folder": str(path.parent),
        "train_csv": str(path),
        "valid_csv": str(path),
        "test_csv": [str(path)],
        "output_neurons": 5,
        "token_type": "char",
        "sample_rate": RATE,
        "cache_audio": False,
    }


def test_segments_are_heard_everywhere(folder):
    """In training, tests, shards and measurements."""
    path = written(folder, SEGMENTS)
    sets = make_datasets(options(path), make_tokenizer(options(path)))
    found = {
        name: {row["id"]: row["sig"].numpy() for row in dataset}
        for name, dataset in {"train": sets.train, **sets.tests}.items()
    }
    found["bench"] = {
        one.id: one.wav_S.numpy() for one in read_spoken(path, RATE)
    }
    shards = folder.parent / "shards"
    write_shards(path, shards)
    found["shards"] = {}
    for row in rows_of(shards / "mine.csv"):
        clip = Clip.parse(row["wav"])
        raw = (shards / clip.path).read_bytes()[clip.start :][: clip.length]
        wave, _ = soundfile.read(io.BytesIO(raw))
        found["shards"][row["ID"]] = wave
        assert float(row["duration"]) == len(wave) / RATE
    for heard in found.values():
        assert {name: len(wave) for name, wave in heard.items()} == {
            "u1": 4000,
            "u2": 8000,
            "u3": 16000,
        }
        for name, wave in heard.items():
            assert wave[0] == pytest.approx(WAVE[STARTS[name]], abs=1e-4)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (SEGMENTS, "utf-8-sig"),
        (SEGMENTS.replace(",", ";"), "utf-8"),
        (SEGMENTS.replace(",", "\t"), "utf-8-sig"),
        (SEGMENTS.replace("\n", "\r\n"), "utf-8"),
        (SEGMENTS.replace(",", ", "), "utf-8"),
    ],
)
def test_what_spreadsheets_write_is_read(text, encoding, folder):
    """Also where the tokenizer is learnt."""
    path = written(folder, text, encoding)
    expected = read_manifest(written(folder, SEGMENTS))
    path = written(folder, text, encoding)
    assert read_manifest(path) == expected
    assert make_tokenizer(options(path)).sp.get_piece_size() == 4


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("u1,500,talk.wav,4000,8000,s,A", "lasts 500 s by its row and 0.5 s"),
        (
            "u1,2.0,talk.wav,8000,24000,s,A",
            "is beyond the end of the recording",
        ),
        (
            "u1,0.5,talk.wav,0.5,1.0,s,A",
            "start '0.5' and the stop '1.0', which",
        ),
        ("u1,0.5,talk.wav,4000,,s,A", "start '4000' and the stop ''"),
        ("u1,0.5,talk.wav,4000,4000,s,A", "start '4000' and the stop '4000'"),
        ("u1,0.5,talk.wav?samples=0+4000,0,4000,s,A", "part of its file twice"),
        ("u1,1.0,https://host/a.wav,,,s,A", "https://host/a.wav, does not"),
        ("u1,1.0,pipe:true,,,s,A", "of u1, pipe:true, does not exist"),
        ("u1,1.0,gone.wav,,,s,A", "audio of u1, FOLDER/gone.wav, does not"),
        ("u1,1.0,$data_rot/x.wav,,,s,A", r"\$data_root stands for the data"),
    ],
)
def test_what_cannot_be_is_refused(row, fault, folder):
    """Before anything is trained, wherever a manifest is used."""
    path = written(folder, HEADER + row + "\n")
    match = f"mine.csv.*{fault.replace('FOLDER', str(folder))}"
    with pytest.raises(InputError, match=match):
        make_datasets(options(path), None)
    with pytest.raises(InputError, match=match):
        write_shards(path, folder / "shards")
    with pytest.raises(InputError, match=match):
        read_spoken(path, RATE)


def test_columns_that_nothing_is_meant_by(
    folder, tmp_path, monkeypatch, caplog
):
    """As in SpeechBrain's own samples, which are named from its root."""
    rows = "u1,2.0,corpus/talk.wav,0,8000,s,A\nu2,2.0,corpus/talk.wav,0,,s,A\n"
    path = tmp_path / "annotation.csv"
    (tmp_path / "deep").mkdir()
    path = tmp_path / "deep/annotation.csv"
    path.write_text(HEADER + rows)
    monkeypatch.chdir(tmp_path)
    found = read_manifest(path)
    assert {row["wav"] for row in found.values()} == {str(folder / "talk.wav")}
    assert "start and stop are ignored" in caplog.text
    check_rows(path, found)
    mixed = rows + "u3,0.5,corpus/talk.wav,0,4000,s,A\n"
    path.write_text(HEADER + mixed)
    found = read_manifest(path)
    assert found["u3"]["wav"].endswith("talk.wav?samples=0+4000")
    with pytest.raises(InputError, match="utterance u1 lasts 2 s by its row"):
        check_rows(path, found)


def test_relative_paths_count_from_the_manifest(folder, tmp_path, monkeypatch):
    """And not from where the command is started."""
    (tmp_path / "other").mkdir()
    soundfile.write(tmp_path / "other" / "talk.wav", WAVE[:9], RATE)
    written(folder, SEGMENTS)
    monkeypatch.chdir(tmp_path / "other")
    rows = read_manifest("../corpus/mine.csv")
    assert rows["u3"]["wav"] == str(folder / "talk.wav")
    monkeypatch.chdir(tmp_path)
    text = HEADER + "u1,2.0,$data_root/talk.wav,,,s,A\n"
    (tmp_path / "elsewhere.csv").write_text(text)
    rows = read_manifest("elsewhere.csv", "corpus/")
    assert rows["u1"]["wav"] == str(folder / "talk.wav")
    (folder / "talk.wav").rename(folder / "moved.wav")
    with pytest.raises(InputError, match=f"paths count from {tmp_path}, and"):
        check_rows("elsewhere.csv", rows)


def split_options(**changes) -> dict:
    """The keys of a YAML that say which sets are used."""
    return {
        "data_folder": "/c/a",
        "output_folder": "out/",
        "dev_splits": ["dev"],
        "valid_csv": None,
        "test_splits": ["test"],
        "test_csv": None,
        "skip_prep": False,
    } | changes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "out/dev.csv"),
        ({"skip_prep": True}, "out/dev.csv"),
        ({"dev_splits": "../b/dev"}, "out/b-dev.csv"),
        ({"valid_csv": "./out/dev-clean.csv"}, "out/dev.csv"),
        ({"valid_csv": "out/dev-clean.csv", "skip_prep": True}, "="),
        ({"valid_csv": "mine/dev-clean.csv"}, "="),
        ({"valid_csv": "mine/dev.csv", "dev_splits": []}, "="),
        ({"valid_csv": "out/b.csv", "dev_splits": ["a", "b"]}, "="),
    ],
)
def test_the_dev_set_is_that_of_its_splits(changes, expected):
    """Not that of another run whose manifest lies in the folder."""
    given = split_options(**changes)
    expected = given["valid_csv"] if expected == "=" else expected
    assert splits_of.dev_set_manifest(given) == expected


@pytest.mark.parametrize("valid_csv", [None, "out/dev-clean.csv"])
def test_no_dev_set_is_said(valid_csv):
    given = split_options(dev_splits=[], valid_csv=valid_csv)
    with pytest.raises(InputError, match="^dev_splits: is empty"):
        splits_of.dev_set_manifest(given)
