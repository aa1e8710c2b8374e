"""The demo corpus: same seed same sound, honest splits, safe rebuilds.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechbrain_ee.data.demo import DemoCorpus, build_demo_corpus
from speechbrain_ee.data.demo import corpus as module
from speechbrain_ee.data.demo.acoustics import (
    add_noise,
    frame_power,
)
from speechbrain_ee.data.demo.text import (
    draw_sentences,
    transcript,
    vocabulary,
)
from speechbrain_ee.data.demo.voices import (
    VARIANTS,
    Speaker,
    split_speakers,
    synthesise,
)
from speechbrain_ee.errors import InputError

SCALE = 0.03
SPLITS = ("train-clean", "dev-clean", "test-clean", "test-other")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    pytest.importorskip("espeakng_loader")
    folder = tmp_path_factory.mktemp("demo") / "corpus"
    return build_demo_corpus(folder, scale=SCALE, progress=False)


def tiny_in(folder: Path, seed: int = 1234) -> DemoCorpus:
    return build_demo_corpus(folder, seed, scale=1e-3, progress=False)


@pytest.fixture
def tiny(tmp_path):
    """The smallest corpus there is, for tests that break it."""
    pytest.importorskip("espeakng_loader")
    return tiny_in(tmp_path / "tiny")


def transcripts(folder: Path) -> dict[str, str]:
    lines = [
        line
        for path in folder.rglob("*.trans.txt")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    return dict(line.split(" ", 1) for line in lines)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_layout_is_that_of_librispeech(corpus):
    assert tuple(corpus.splits) == SPLITS
    for split, summary in corpus.splits.items():
        folder = corpus.folder / split
        audio = sorted(folder.glob("*/*/*.flac"))
        texts = transcripts(folder)
        assert {path.stem for path in audio} == set(texts)
        assert len(audio) == summary.utterances
        assert len({p.parent.parent for p in audio}) == summary.speakers
        for path in audio:
            speaker, chapter, number = path.stem.split("-")
            assert path.parent.name == chapter
            assert path.parent.parent.name == speaker
            assert re.fullmatch(r"\d{4}", number)
        infos = [soundfile.info(path) for path in audio]
        formats = {(i.samplerate, i.channels, i.subtype) for i in infos}
        assert formats == {(16000, 1, "PCM_16")}
        hours = sum(info.duration for info in infos) / 3600
        assert summary.hours == pytest.approx(hours, abs=1e-4)


def test_no_sentence_is_in_two_splits(corpus):
    texts = [
        text
        for split in SPLITS
        for text in transcripts(corpus.folder / split).values()
    ]
    assert len(set(texts)) == len(texts) > 100
    words = {word for text in texts for word in text.split()}
    assert words <= vocabulary()


def test_speech_fills_the_file_and_never_clips(corpus):
    for path in (corpus.folder / "test-clean").rglob("*.flac"):
        sound, rate_hz = soundfile.read(path)
        words = len(transcripts(path.parent)[path.stem].split())
        assert 0.12 < (len(sound) / rate_hz - 0.2) / words < 0.7
        assert 0.03 < np.abs(sound).max() <= 0.91
        edge = sound[: round(0.08 * rate_hz)]
        assert np.mean(edge**2) < 0.01 * np.mean(sound**2)


def test_other_is_noisier_than_clean(corpus):
    def snr_db(split: str) -> list[float]:
        """The mean power over that of the quietest tenth of the frames."""
        found = []
        for path in (corpus.folder / split).rglob("*.flac"):
            power = np.sort(frame_power(soundfile.read(path)[0]))
            floor = power[: len(power) // 10].mean()
            found.append(10 * np.log10(power.mean() / max(floor, 1e-12)))
        return found

    clean, other = snr_db("test-clean"), snr_db("test-other")
    assert np.mean(clean) > np.mean(other) + 10
    assert np.std(other) > 2  # utterances differ in difficulty


def test_same_seed_same_bytes_and_other_seed_other_texts(tiny, tmp_path):
    same = tiny_in(tmp_path / "same")
    assert contents(same.folder) == contents(tiny.folder)
    other = tiny_in(tmp_path / "b", 7)
    assert transcripts(other.folder) != transcripts(tiny.folder)


def test_processes_do_not_change_the_result(
    tiny, tmp_path, monkeypatch, caplog
):
    caplog.clear()
    monkeypatch.setattr(module, "_POOL_FROM", 1)
    monkeypatch.setattr(module.os, "cpu_count", lambda: 2)
    pooled = tiny_in(tmp_path / "pool")
    assert not caplog.records  # no falling back to one process
    assert contents(pooled.folder) == contents(tiny.folder)


def test_complete_corpus_is_left_alone_and_needs_no_espeak(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    before = (tiny.folder / "corpus.json").stat().st_mtime_ns
    assert tiny_in(tiny.folder) == tiny
    assert (tiny.folder / "corpus.json").stat().st_mtime_ns == before


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def of_another_kind(key: str):
    """What gives a key of the marker another value."""

    def change(path: Path) -> None:
        marker = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(marker | {key: 99}), encoding="utf-8")

    return change


KINDS = [of_another_kind(key) for key in ("version", "seed", "files")]


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        *(("*.flac", how) for how in (Path.unlink, cut, flip)),
        ("*.trans.txt", flip),
        *(("corpus.json", how) for how in (Path.unlink, cut, *KINDS)),
    ],
)
def test_what_is_not_whole_or_not_wanted_is_rebuilt(tiny, pattern, damage):
    whole = contents(tiny.folder)
    damage(sorted(tiny.folder.rglob(pattern))[0])
    assert contents(tiny.folder) != whole
    assert tiny_in(tiny.folder) == tiny
    assert contents(tiny.folder) == whole
    assert [p.name for p in tiny.folder.parent.iterdir()] == ["tiny"]


def test_interrupted_rebuild_leaves_the_old_corpus(tiny, monkeypatch):
    def interrupt(_job: object) -> None:
        raise KeyboardInterrupt

    whole = contents(tiny.folder)
    monkeypatch.setattr(module, "_render", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tiny_in(tiny.folder, 2)
    assert contents(tiny.folder) == whole
    assert [p.name for p in tiny.folder.parent.iterdir()] == ["tiny"]


@pytest.mark.parametrize(
    "foreign",
    ["notes.txt", "dev-clean/84/121123/84-121123-0000.flac", "train/9001/x"],
)
def test_foreign_folder_is_refused(tmp_path, foreign):
    path = tmp_path / "mine" / foreign
    path.parent.mkdir(parents=True)
    path.write_text("precious", encoding="utf-8")
    with pytest.raises(InputError, match=foreign.split("/")[0]):
        tiny_in(tmp_path / "mine")
    assert path.read_text(encoding="utf-8") == "precious"


def test_file_in_the_way_and_unwritable_folder(tmp_path):
    pytest.importorskip("espeakng_loader")
    path = tmp_path / "file"
    path.write_text("precious", encoding="utf-8")
    with pytest.raises(InputError, match="is a file"):
        build_demo_corpus(path, progress=False)
    with pytest.raises(InputError, match="cannot be written"):
        build_demo_corpus(path / "below", progress=False)


def test_missing_extra_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(InputError, match=r"speechbrain-ee\[demo\]"):
        tiny_in(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


# ---- Voices ----------------------------------------------------------------


def test_no_variant_and_no_speaker_number_is_in_two_splits():
    speakers = [
        speaker for split in SPLITS for speaker in split_speakers(split, seed=5)
    ]
    numbers = [speaker.number for speaker in speakers]
    assert len(set(numbers)) == len(numbers) >= 24 + 8
    variants = [v for split in SPLITS for v in VARIANTS[split]]
    assert len(set(variants)) == len(variants)
    voices = [speaker.voice for speaker in speakers]
    assert len(set(voices)) == len(voices)


def test_a_sentence_does_not_depend_on_the_one_before():
    pytest.importorskip("espeakng_loader")
    ann, bob, *_ = split_speakers("test-clean", seed=1)

    def say(sentence: str, speaker: Speaker) -> np.ndarray:
        rng = np.random.default_rng(3)
        return synthesise(sentence, speaker, rng)

    alone = say("the lake is near.", ann)
    say("where is the tiny kettle?", bob)
    assert np.array_equal(alone, say("the lake is near.", ann))


# ---- Rooms and noises ------------------------------------------------------


@pytest.mark.parametrize("snr_db", [0.0, 12.5])
def test_noise_is_mixed_at_the_ratio(snr_db):
    rng = np.random.default_rng(4)
    speech, noise = rng.standard_normal((2, 16000))
    added = add_noise(speech, noise, snr_db) - speech
    ratio = np.mean(speech**2) / np.mean(added**2)
    assert 10 * np.log10(ratio) == pytest.approx(snr_db, abs=0.05)


# ---- Sentences -------------------------------------------------------------


def test_grammar_has_many_words_and_says_them_all():
    words = vocabulary()
    assert len(words) >= 400
    said = draw_sentences(3000, np.random.default_rng(0), set())
    heard = {word for s in said for word in transcript(s).split()}
    assert heard == words
