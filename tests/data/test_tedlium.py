"""TED-LIUM 3: a miniature of the release becomes manifests.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechbrain_ee.data.audio import AudioReader
from speechbrain_ee.data.corpora import prepare_tedlium3, read_stm, stm_words
from speechbrain_ee.errors import InputError
from tests.data.corpora import ids_of, rows_of

RATE = 16000
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
def release(tmp_path: Path) -> Path:
    """The folders of TED-LIUM 3."""
    root = tmp_path / "TEDLIUM_release-3"
    add_talk(root / "legacy/train", "AnnLee_2009")
    add_talk(root / "legacy/train", "BobRoe_2010X")
    add_talk(root / "legacy/dev", "CarlDoe_2011")
    add_talk(root / "legacy/test", "DeeKay_2012")
    return root


def prepare(data_folder: Path, save: Path, **options: object) -> dict:
    """All three splits, as train.py does."""
    given = {
        "tr_splits": ["train"],
        "dev_splits": ["dev"],
        "te_splits": ["test"],
        "merge_lst": ["train"],
        "merge_name": "train.csv",
        **options,
    }
    return prepare_tedlium3(data_folder, save, **given)


def test_manifests(release: Path, save: Path) -> None:
    """Words, speakers, durations; and the reasons for what is left out."""
    reports = prepare(release, save)
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


def test_audio_is_that_of_the_segment(release: Path, save: Path) -> None:
    """Sample by sample."""
    prepare(release, save)
    for row in rows_of(save / "train.csv"):
        talk, start, stop = row["ID"].rsplit("-", 2)
        start, stop = int(start) * RATE // 100, int(stop) * RATE // 100
        wanted = samples(talk)[start:stop]
        found = AudioReader(RATE)(row["wav"])
        assert np.array_equal((found * 32768).numpy(), wanted)


@pytest.mark.parametrize("where", [".", "legacy", ".."])
def test_any_of_the_folders_will_do(
    where: str, release: Path, save: Path
) -> None:
    prepare(release, save)
    folder = release.parent if where == ".." else release / where
    other = save.with_name("other")
    prepare(folder, other)
    for name in ("train", "dev", "test"):
        wanted = rows_of(save / f"{name}.csv")
        assert rows_of(other / f"{name}.csv") == wanted


def test_training_talks_of_the_new_part(release: Path, save: Path) -> None:
    """Without legacy/train; never a talk that is tested on."""
    (release / "legacy/train").rename(release / "data")
    add_talk(release / "data", "DeeKay_2012")
    add_talk(release / "data", "CarlDoe_2011")
    prepare(release, save)
    talks = {name.rsplit("-", 2)[0] for name in ids_of(save / "train.csv")}
    assert talks == {"AnnLee_2009", "BobRoe_2010X"}


def test_unchanged_is_left_alone(release: Path, save: Path) -> None:
    reports = prepare(release, save)
    before = (save / "train.csv").stat().st_mtime_ns
    assert prepare(release, save) == reports
    assert (save / "train.csv").stat().st_mtime_ns == before
    add_talk(release / "legacy/train", "EveFoo_2013")
    prepare(release, save)
    assert len(ids_of(save / "train.csv")) == 3 * len(WORDS)


def test_limits_and_numbers(release: Path, save: Path) -> None:
    reports = prepare(release, save, max_duration_s=2.4, select_n_sentences=2)
    assert [reports[name].utterances for name in reports] == [2, 2, 2]
    lengths = [float(row["duration"]) for row in rows_of(save / "train.csv")]
    assert max(lengths) <= 2.4
    assert prepare(release, save, skip_prep=True) == {}


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
def test_a_broken_line_is_named(line: str, release: Path, save: Path) -> None:
    """By file and number."""
    path = add_talk(release / "legacy/dev", "CarlDoe_2011", STM + line + "\n")
    message = rf"{path}:{STM.count(chr(10)) + 1}: is not a line of an STM file"
    with pytest.raises(InputError, match=message):
        prepare(release, save)


def test_text_that_is_not_utf8_is_named(release: Path, save: Path) -> None:
    path = release / "legacy/dev/stm/CarlDoe_2011.stm"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=f"{path} cannot be read as UTF-8"):
        prepare(release, save)


def test_missing_splits_are_named(release: Path, save: Path) -> None:
    (release / "legacy/test/stm").rename(release / "legacy/test/else")
    with pytest.raises(InputError, match="no split 'test' of TED-LIUM 3"):
        prepare(release, save)
    with pytest.raises(InputError, match="no split 'train'.*not a folder"):
        prepare(release.parent / "none", save)
    (release / "legacy/test/stm").mkdir()
    with pytest.raises(InputError, match=r"stm holds no \*\.stm file"):
        prepare(release, save)
    with pytest.raises(
        InputError, match="dev-clean: TED-LIUM 3 has the splits"
    ):
        prepare(release, save, dev_splits=["dev-clean"])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "missing audio"),
        (lambda path: path.write_bytes(b"NIST_1A\n"), "unreadable audio"),
    ],
)
def test_missing_audio_is_reported(
    damage: object, reason: str, release: Path, save: Path
) -> None:
    """Every segment of that talk; a split without any is an error."""
    damage(release / "legacy/train/sph/AnnLee_2009.sph")
    report = prepare(release, save)["train"]
    assert {name.split("-")[0] for name in report.skipped[reason]} == {
        "AnnLee_2009"
    }
    assert report.utterances == len(WORDS)
    damage(release / "legacy/dev/sph/CarlDoe_2011.sph")
    with pytest.raises(InputError, match=f"split dev can be used.*{reason}"):
        prepare(release, save)


def test_segments_that_are_there_twice(release: Path, save: Path) -> None:
    line = "{talk} 1 {talk} 7.00 9.02 <o,f0,male> another end\n"
    add_talk(release / "legacy/dev", "CarlDoe_2011", STM + line)
    report = prepare(release, save)["dev"]
    twice = ("CarlDoe_2011-0000700-0000902",)
    assert report.skipped["duplicate id"] == twice
    assert rows_of(save / "dev.csv")[-1]["wrd"] == "THE END"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<o,f0,male> don 't you 're we 've i 'd", "DON'T YOU'RE WE'VE I'D"),
        ("<NA> the kids ' cat 's [laughs] 'em", "THE KIDS CAT'S 'EM"),
        ("<o,,unknown> caf\u00e9 {SMACK} read(2) (2)", "CAF\u00c9 READ"),
        ("no labels -- at all.", "NO LABELS AT ALL"),
        ("<unk> {UH}", ""),
        ("", ""),
    ],
)
def test_words(text: str, words: str) -> None:
    """What was not said, or not as a word, is not there."""
    assert stm_words(text) == words


def test_a_line_without_words(tmp_path: Path) -> None:
    """Is a segment with an empty transcript, not a broken line."""
    path = tmp_path / "talk.stm"
    path.write_text("\ufefftalk 1 her 0.5 1.25\r\n", encoding="utf-8")
    (line,) = read_stm(path)
    assert (line.speaker, line.text) == ("her", "")
    assert line.name == "talk-0000050-0000125"
