"""VoxPopuli: a miniature of its layout becomes manifests.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

import pytest
import soundfile

from speechbrain_ee.data.corpora import prepare_voxpopuli
from speechbrain_ee.data.words import librispeech_words
from speechbrain_ee.errors import InputError
from tests.data.corpora import RATE, ids_of, rows_of, tone

COLUMNS = (
    "id raw_text normalized_text speaker_id split gender is_gold_transcript "
    "accent"
).split()
FIRST = "20090112-0900-PLENARY-16-en_20090112-21:22:00_3"


def line(name: str, text: str, split: str = "train") -> str:
    """Of a table; the raw text begins with a quote that never ends."""
    cells = [name, f'"{text}', text, "2864", split, "female", "True", "None"]
    return "\t".join(cells)


def add(folder: Path, split: str, lines: dict[str, str]) -> None:
    """A table and its audio, a second each."""
    rows = ["\t".join(COLUMNS)]
    for name, text in lines.items():
        rows.append(line(name, text, split))
        path = folder / name[:4] / f"{name}.ogg"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tone(1.0), RATE, "VORBIS", format="OGG")
    (folder / f"asr_{split}.tsv").write_text(
        "\n".join(rows) + "\n", encoding="utf-8"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the language."""
    folder = tmp_path / "voxpopuli/transcribed_data/en"
    add(
        folder,
        "train",
        {
            "20120203-x_1": "mr president, it\u2019s 27 member states",
            FIRST: 'the so-called "market"',
        },
    )
    add(folder, "dev", {"20110101-y_0": "thank you"})
    add(folder, "test", {"20110101-z_0": "i agree", "20110101-z_1": "..."})
    return folder


def prepare(folder: Path, save: Path, **options: object) -> dict:
    """All three splits, as train.py does."""
    given = {
        "tr_splits": ["train"],
        "dev_splits": ["dev"],
        "te_splits": ["test"],
        "merge_lst": ["train"],
        "merge_name": "train.csv",
        **options,
    }
    return prepare_voxpopuli(folder, save, **given)


@pytest.mark.parametrize("above", [0, 1, 2])
def test_manifests(above: int, folder: Path, save: Path) -> None:
    """From the corpus, and from the folders in it."""
    root = [folder, *folder.parents][above]
    reports = prepare(root, save)
    rows = rows_of(save / "train.csv")
    assert [(row["ID"], row["wrd"]) for row in rows] == [
        (FIRST, "THE SO CALLED MARKET"),
        ("20120203-x_1", "MR PRESIDENT IT'S 27 MEMBER STATES"),
    ]
    assert rows[0]["wav"] == str(folder / "2009" / f"{FIRST}.ogg")
    assert {row["spk_id"] for row in rows} == {"2864"}
    assert [float(row["duration"]) for row in rows] == [1.0, 1.0]
    assert ids_of(save / "dev.csv") == ["20110101-y_0"]
    assert ids_of(save / "test.csv") == ["20110101-z_0"]
    assert reports["test"].skipped == {"empty transcript": ("20110101-z_1",)}


def test_an_unknown_speaker_has_no_name(folder: Path, save: Path) -> None:
    table = folder / "asr_train.tsv"
    text = table.read_text("utf-8").replace("2864", "None", 1)
    table.write_text(text, "utf-8")
    prepare(folder, save)
    rows = rows_of(save / "train.csv")
    assert sorted(row["spk_id"] for row in rows) == ["", "2864"]


def test_what_cannot_be_used_is_reported(folder: Path, save: Path) -> None:
    """Missing and empty audio, and an id that is there twice."""
    (folder / "2009" / f"{FIRST}.ogg").unlink()
    table = folder / "asr_train.tsv"
    extra = [line("20120203-x_1", "again"), line("20120203-x_2", "fine")]
    table.write_text(table.read_text("utf-8") + "\n".join(extra), "utf-8")
    (folder / "2012/20120203-x_2.ogg").touch()
    report = prepare(folder, save)["train"]
    assert report.skipped == {
        "missing audio": (FIRST,),
        "duplicate id": ("20120203-x_1",),
        "empty audio": ("20120203-x_2",),
    }
    assert ids_of(save / "train.csv") == ["20120203-x_1"]


def test_a_missing_split_is_named(folder: Path, save: Path) -> None:
    (folder / "asr_dev.tsv").unlink()
    with pytest.raises(InputError, match="no split 'dev' of VoxPopuli"):
        prepare(folder, save)
    with pytest.raises(InputError, match="VoxPopuli has the splits train"):
        prepare(folder, save, tr_splits=["train-clean-100"], merge_lst=())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ":1: lacks the columns id, normalized_text, speaker_id"),
        ("id\tnormalized_text\n", ":1: lacks the columns speaker_id"),
        ("\t".join(COLUMNS) + "\na\tb\n", ":2: has 2 cells, of 8"),
        ("\t".join(COLUMNS) + "\n" + line("", "b"), ":2: .* or no id"),
        (b"\xff", "cannot be read as UTF-8"),
    ],
)
def test_a_broken_table_is_named(
    content: str | bytes, message: str, folder: Path, save: Path
) -> None:
    path = folder / "asr_dev.tsv"
    raw = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(raw)
    with pytest.raises(InputError, match=f"{path}{message}|{message}") as error:
        prepare(folder, save)
    assert str(path) in str(error.value)


def test_unchanged_is_left_alone(folder: Path, save: Path) -> None:
    reports = prepare(folder, save)
    before = (save / "train.csv").stat().st_mtime_ns
    assert prepare(folder, save) == reports
    assert (save / "train.csv").stat().st_mtime_ns == before
    add(folder, "dev", {"20110101-y_0": "thank you", "20110102-y_1": "no"})
    assert prepare(folder, save)["dev"].utterances == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don\u2019t -- 'stop'!", "DON'T 'STOP'"),
        ("e\u0301tat `s", "\u00c9TAT'S"),
        ("' ''", ""),
        ("3,5 %", "3 5"),
    ],
)
def test_words(text: str, words: str) -> None:
    """Composed letters, one kind of apostrophe, no punctuation."""
    assert librispeech_words(text) == words
