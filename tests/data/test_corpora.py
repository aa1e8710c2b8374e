"""TED-LIUM 3 and VoxPopuli: miniatures of their layouts become manifests.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from speechbrain_ee.data.audio import AudioReader
from speechbrain_ee.data.corpora import (
    preparation_of,
    prepare_librispeech,
    prepare_tedlium3,
    prepare_voxpopuli,
    stm_words,
    with_corpus,
)
from speechbrain_ee.data.words import librispeech_words
from speechbrain_ee.errors import InputError
from speechbrain_ee.training.options import load_options
from tests.data.corpora import RATE, ids_of, rows_of, tone


def prepare(function, folder: Path, save: Path, **options: object) -> dict:
    """All three splits, as train.py does."""
    given = {
        "tr_splits": ["train"],
        "dev_splits": ["dev"],
        "te_splits": ["test"],
        "merge_lst": ["train"],
        "merge_name": "train.csv",
        **options,
    }
    return function(folder, save, **given)


# ---- TED-LIUM 3 ------------------------------------------------------------


TALK_S = 9.0
STM = """\
;; CATEGORY "0" "" ""
{talk} 1 {talk} 0.00 1.02 <NA> ignore_time_segment_in_scoring
{talk} 1 {talk} 1.02 3.50 <o,f0,male> so i 'm <unk> here it 's fine

{talk} 1 {talk} 3.5 6.25 <o,f0,female> {{NOISE}} that 's(2) twenty dogs ' tails
{talk} 1 {talk} 6.25 7.00 <o,f0,male> {{COUGH}} <unk>
{talk} 1 {talk} 7.00 9.02 <o,f0,male> the end
{talk} 1 {talk} 8.90 12.00 <o,f0,male> applause that goes on
"""
# Of the lines above: words by id (times in hundredths of a second).
WORDS = {
    "0000102-0000350": "SO I'M HERE IT'S FINE",
    "0000350-0000625": "THAT'S TWENTY DOGS TAILS",
    "0000700-0000902": "THE END",
}
SKIPPED = {
    "0000000-0000102": "not to be scored",
    "0000625-0000700": "empty transcript",
    "0000890-0001200": "beyond the end of the recording",
}


def samples(talk: str) -> np.ndarray:
    """The audio of a talk."""
    rng = np.random.default_rng(sum(map(ord, talk)))
    return rng.integers(-3000, 3000, round(TALK_S * RATE), dtype=np.int16)


def add_talk(folder: Path, talk: str, text: str = STM) -> Path:
    """Audio and transcript; returns the latter."""
    for name in ("sph", "stm"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    audio = folder / "sph" / f"{talk}.sph"
    soundfile.write(audio, samples(talk), RATE, "PCM_16", format="NIST")
    transcript = folder / "stm" / f"{talk}.stm"
    transcript.write_text(text.format(talk=talk), encoding="utf-8")
    return transcript


@pytest.fixture
def release(tmp_path):
    """The folders of TED-LIUM 3."""
    root = tmp_path / "TEDLIUM_release-3"
    add_talk(root / "legacy/train", "AnnLee_2009")
    add_talk(root / "legacy/train", "BobRoe_2010X")
    add_talk(root / "legacy/dev", "CarlDoe_2011")
    add_talk(root / "legacy/test", "DeeKay_2012")
    return root


def test_talks(release, save):
    """Words, speakers, durations; and the reasons for what is left out."""
    reports = prepare(prepare_tedlium3, release, save)
    assert reports.keys() == {"train", "dev", "test"}
    talks = {
        "train": ["AnnLee_2009", "BobRoe_2010X"],
        "dev": ["CarlDoe_2011"],
        "test": ["DeeKay_2012"],
    }
    for split, names in talks.items():
        rows = rows_of(save / f"{split}.csv")
        wanted = {f"{t}-{at}": w for t in names for at, w in WORDS.items()}
        assert {row["ID"]: row["wrd"] for row in rows} == wanted
        assert [row["ID"] for row in rows] == sorted(wanted)
        assert {row["spk_id"] for row in rows} == set(names)
        for row in rows:
            start, stop = (int(part) for part in row["ID"].split("-")[-2:])
            stop = min(stop, round(100 * TALK_S))
            assert float(row["duration"]) == pytest.approx((stop - start) / 100)
        skipped = {
            one: reason
            for reason, ones in reports[split].skipped.items()
            for one in ones
        }
        assert skipped == {
            f"{talk}-{at}": why for talk in names for at, why in SKIPPED.items()
        }


def test_audio_is_that_of_the_segment(release, save):
    """Sample by sample."""
    prepare(prepare_tedlium3, release, save)
    for row in rows_of(save / "train.csv"):
        talk, start, stop = row["ID"].rsplit("-", 2)
        start, stop = int(start) * RATE // 100, int(stop) * RATE // 100
        wanted = samples(talk)[start:stop]
        found = AudioReader(RATE)(row["wav"])
        assert np.array_equal((found * 32768).numpy(), wanted)


@pytest.mark.parametrize("where", [".", "legacy", ".."])
def test_any_of_the_folders_will_do(where, release, save):
    prepare(prepare_tedlium3, release, save)
    folder = release.parent if where == ".." else release / where
    other = save.with_name("other")
    prepare(prepare_tedlium3, folder, other)
    for name in ("train", "dev", "test"):
        wanted = rows_of(save / f"{name}.csv")
        assert rows_of(other / f"{name}.csv") == wanted


def test_training_talks_of_the_new_part(release, save):
    """Without legacy/train; never a talk that is tested on."""
    (release / "legacy/train").rename(release / "data")
    add_talk(release / "data", "DeeKay_2012")
    add_talk(release / "data", "CarlDoe_2011")
    prepare(prepare_tedlium3, release, save)
    talks = {name.rsplit("-", 2)[0] for name in ids_of(save / "train.csv")}
    assert talks == {"AnnLee_2009", "BobRoe_2010X"}


@pytest.mark.parametrize(
    "line",
    [
        "{talk} 1 {talk} 1.0",
        "{talk} 1 {talk} one 2.0 <o,f0,male> words",
        "{talk} 1 {talk} 2.0 1.9 <o,f0,male> words",
        "{talk} 1 {talk} -1 2.0 <o,f0,male> words",
        "{talk} 1 {talk} 1.0 nan <o,f0,male> words",
    ],
)
def test_a_broken_line_is_named(line, release, save):
    """By file and number; or the file, if it is not UTF-8."""
    path = add_talk(release / "legacy/dev", "CarlDoe_2011", STM + line + "\n")
    message = rf"{path}:{STM.count(chr(10)) + 1}: is not a line of an STM file"
    with pytest.raises(InputError, match=message):
        prepare(prepare_tedlium3, release, save)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=f"{path} cannot be read as UTF-8"):
        prepare(prepare_tedlium3, release, save)


def test_missing_splits_are_named(release, save):
    (release / "legacy/test/stm").rename(release / "legacy/test/else")
    with pytest.raises(InputError, match="no split 'test' of TED-LIUM 3"):
        prepare(prepare_tedlium3, release, save)
    with pytest.raises(InputError, match="no split 'train'.*not a folder"):
        prepare(prepare_tedlium3, release.parent / "none", save)
    (release / "legacy/test/stm").mkdir()
    with pytest.raises(InputError, match=r"stm holds no \*\.stm file"):
        prepare(prepare_tedlium3, release, save)
    with pytest.raises(
        InputError, match="dev-clean: TED-LIUM 3 has the splits"
    ):
        prepare(prepare_tedlium3, release, save, dev_splits=["dev-clean"])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "missing audio"),
        (lambda path: path.write_bytes(b"NIST_1A\n"), "unreadable audio"),
    ],
)
def test_missing_audio_is_reported(damage, reason, release, save):
    """Every segment of that talk; a split without any is an error."""
    damage(release / "legacy/train/sph/AnnLee_2009.sph")
    report = prepare(prepare_tedlium3, release, save)["train"]
    assert {name.split("-")[0] for name in report.skipped[reason]} == {
        "AnnLee_2009"
    }
    assert report.utterances == len(WORDS)
    damage(release / "legacy/dev/sph/CarlDoe_2011.sph")
    with pytest.raises(InputError, match=f"split dev can be used.*{reason}"):
        prepare(prepare_tedlium3, release, save)


# ---- VoxPopuli -------------------------------------------------------------


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
def folder(tmp_path):
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


@pytest.mark.parametrize("above", [0, 1, 2])
def test_tables(above, folder, save):
    """From the corpus, and from the folders in it."""
    root = [folder, *folder.parents][above]
    reports = prepare(prepare_voxpopuli, root, save)
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


def test_an_unknown_speaker_has_no_name(folder, save):
    table = folder / "asr_train.tsv"
    text = table.read_text("utf-8").replace("2864", "None", 1)
    table.write_text(text, "utf-8")
    prepare(prepare_voxpopuli, folder, save)
    rows = rows_of(save / "train.csv")
    assert sorted(row["spk_id"] for row in rows) == ["", "2864"]


def test_what_cannot_be_used_is_reported(folder, save):
    """Missing and empty audio, and an id that is there twice."""
    (folder / "2009" / f"{FIRST}.ogg").unlink()
    table = folder / "asr_train.tsv"
    extra = [line("20120203-x_1", "again"), line("20120203-x_2", "fine")]
    table.write_text(table.read_text("utf-8") + "\n".join(extra), "utf-8")
    (folder / "2012/20120203-x_2.ogg").touch()
    report = prepare(prepare_voxpopuli, folder, save)["train"]
    assert report.skipped == {
        "missing audio": (FIRST,),
        "duplicate id": ("20120203-x_1",),
        "empty audio": ("20120203-x_2",),
    }
    assert ids_of(save / "train.csv") == ["20120203-x_1"]


def test_a_missing_split_is_named(folder, save):
    (folder / "asr_dev.tsv").unlink()
    with pytest.raises(InputError, match="no split 'dev' of VoxPopuli"):
        prepare(prepare_voxpopuli, folder, save)
    with pytest.raises(InputError, match="VoxPopuli has the splits train"):
        prepare(
            prepare_voxpopuli,
            folder,
            save,
            tr_splits=["train-clean-100"],
            merge_lst=(),
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ":1: lacks the columns id, normalized_text, speaker_id"),
        ("id\tnormalized_text\n", ":1: lacks the columns speaker_id"),
        ("\t".join(COLUMNS) + "\na\tb\n", ":2: has more or fewer than 8 cells"),
        ("\t".join(COLUMNS) + "\n" + line("", "b"), ":2: .* or no id"),
        (b"\xff", "cannot be read as UTF-8"),
    ],
)
def test_a_broken_table_is_named(content, message, folder, save):
    path = folder / "asr_dev.tsv"
    raw = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(raw)
    with pytest.raises(InputError, match=f"{path}{message}|{message}") as error:
        prepare(prepare_voxpopuli, folder, save)
    assert str(path) in str(error.value)


def add_dev_talk(release: Path) -> None:
    add_talk(release / "legacy/dev", "EveFoo_2013")


def add_dev_line(folder: Path) -> None:
    add(folder, "dev", {"20110101-y_0": "thank you", "20110102-y_1": "no"})


@pytest.mark.parametrize(
    ("function", "fixture", "change", "more"),
    [
        (prepare_tedlium3, "release", add_dev_talk, len(WORDS)),
        (prepare_voxpopuli, "folder", add_dev_line, 1),
    ],
)
def test_unchanged_is_left_alone(
    function, fixture, change, more, save, request
):
    source = request.getfixturevalue(fixture)
    reports = prepare(function, source, save)
    before = (save / "train.csv").stat().st_mtime_ns
    assert prepare(function, source, save) == reports
    assert (save / "train.csv").stat().st_mtime_ns == before
    change(source)
    again = prepare(function, source, save)["dev"].utterances
    assert again == reports["dev"].utterances + more


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<o,f0,male> don 't you 're we 've i 'd", "DON'T YOU'RE WE'VE I'D"),
        ("<NA> the kids ' cat 's [laughs] 'em", "THE KIDS CAT'S 'EM"),
        ("<o,,unknown> caf\u00e9 {SMACK} read(2) (2)", "CAF\u00c9 READ"),
        ("<unk> {UH}", ""),
        ("no labels -- at all.", "NO LABELS AT ALL"),
        ("Don\u2019t -- 'stop'!", "DON'T 'STOP'"),
        ("e\u0301tat `s", "\u00c9TAT'S"),
        ("' ''", ""),
        ("3,5 %", "3 5"),
    ],
)
def test_words(text, words):
    """What was not said, or not as a word, is not there."""
    assert stm_words(text) == words
    if not set(text) & set("<{[("):
        assert librispeech_words(text) == words


# ---- The key corpus --------------------------------------------------------


def test_splits_and_manifests_follow(repository):
    """And what is given stays."""
    path = str(repository / "hparams/demo.yaml")
    given = "{corpus: tedlium3, output_folder: out, dev_splits: [test]}"
    assert yaml.safe_load(with_corpus(path, given)) == {
        "corpus": "tedlium3",
        "output_folder": "out",
        "train_splits": ["train"],
        "dev_splits": ["test"],
        "test_splits": ["test"],
        "train_csv": "out/train.csv",
        "valid_csv": "out/dev.csv",
        "test_csv": ["out/test.csv"],
        "system_name": "Conformer-CTC, 6 exits (TED-LIUM 3)",
    }


@pytest.mark.parametrize("given", ["", "{lr: 1}", "{corpus: librispeech}", "["])
def test_librispeech_is_as_the_yaml_has_it(given, repository):
    assert with_corpus(str(repository / "hparams/demo.yaml"), given) == given


def test_errors(repository):
    path = str(repository / "hparams/demo.yaml")
    with pytest.raises(InputError, match="'ted' is unknown; use one of libri"):
        with_corpus(path, "{corpus: ted}")
    with pytest.raises(InputError, match="voxpopuli .* needs an output_folder"):
        with_corpus(path, "{corpus: voxpopuli}")
    with pytest.raises(InputError, match="corpus: 3 is unknown"):
        preparation_of(3, prepare_librispeech)
    assert preparation_of("librispeech", prepare_librispeech) is (
        prepare_librispeech
    )


def test_shards_take_the_place_of_training_splits(repository, tmp_path):
    """So that these need not be there."""
    path = str(repository / "hparams/demo.yaml")
    given = f"{{data_folder: x, output_folder: {tmp_path}, train_shards: y}}"
    options = load_options(path, given)
    assert options["train_splits"] == [] and options["dev_splits"]
    assert options["corpus"] == "librispeech"
