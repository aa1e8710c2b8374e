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
from speechbrain_ee.data.demo import acoustics as demo_acoustics
from speechbrain_ee.data.demo import corpus as demo
from speechbrain_ee.data.demo import text as demo_text
from speechbrain_ee.errors import InputError

SCALE = 0.03
SPLITS = ("train-clean", "dev-clean", "test-clean", "test-other")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> DemoCorpus:
    pytest.importorskip("espeakng_loader")
    folder = tmp_path_factory.mktemp("demo") / "corpus"
    return build_demo_corpus(folder, scale=SCALE, progress=False)


@pytest.fixture
def tiny(tmp_path: Path) -> DemoCorpus:
    """The smallest corpus there is, for tests that break it."""
    pytest.importorskip("espeakng_loader")
    return build_demo_corpus(tmp_path / "tiny", scale=1e-3, progress=False)


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


def rebuilt(corpus: DemoCorpus) -> DemoCorpus:
    return build_demo_corpus(corpus.folder, scale=1e-3, progress=False)


# ---- corpus ----


def test_layout_is_that_of_librispeech(corpus: DemoCorpus):
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


def test_no_sentence_is_in_two_splits(corpus: DemoCorpus):
    texts = [
        text
        for split in SPLITS
        for text in transcripts(corpus.folder / split).values()
    ]
    assert len(set(texts)) == len(texts) > 100
    words = {word for text in texts for word in text.split()}
    assert words <= demo_text.vocabulary()


def test_speech_fills_the_file_and_never_clips(corpus: DemoCorpus):
    for path in (corpus.folder / "test-clean").rglob("*.flac"):
        sound, rate_hz = soundfile.read(path)
        words = len(transcripts(path.parent)[path.stem].split())
        assert 0.12 < (len(sound) / rate_hz - 0.2) / words < 0.7
        assert 0.03 < np.abs(sound).max() <= 0.91
        edge = sound[: round(0.08 * rate_hz)]
        assert np.mean(edge**2) < 0.01 * np.mean(sound**2)


def test_other_is_noisier_than_clean(corpus: DemoCorpus):
    def snr_db(split: str) -> list[float]:
        return [
            demo_acoustics.estimate_snr_db(soundfile.read(path)[0])
            for path in (corpus.folder / split).rglob("*.flac")
        ]

    clean, other = snr_db("test-clean"), snr_db("test-other")
    assert np.mean(clean) > np.mean(other) + 10
    assert np.std(other) > 2  # utterances differ in difficulty


# ---- determinism ----


def test_same_seed_same_bytes_and_other_seed_other_texts(
    tiny: DemoCorpus, tmp_path: Path
):
    same = build_demo_corpus(tmp_path / "same", scale=1e-3, progress=False)
    assert contents(same.folder) == contents(tiny.folder)
    other = build_demo_corpus(tmp_path / "b", 7, scale=1e-3, progress=False)
    assert transcripts(other.folder) != transcripts(tiny.folder)


def test_processes_do_not_change_the_result(
    tiny: DemoCorpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    caplog.clear()
    monkeypatch.setattr(demo, "_POOL_FROM", 1)
    monkeypatch.setattr(demo.os, "cpu_count", lambda: 2)
    pooled = build_demo_corpus(tmp_path / "pool", scale=1e-3, progress=False)
    assert not caplog.records  # no falling back to one process
    assert contents(pooled.folder) == contents(tiny.folder)


# ---- repair and refusal ----


def test_complete_corpus_is_left_alone_and_needs_no_espeak(
    tiny: DemoCorpus, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    before = (tiny.folder / "corpus.json").stat().st_mtime_ns
    assert rebuilt(tiny) == tiny
    assert (tiny.folder / "corpus.json").stat().st_mtime_ns == before


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize("damage", [Path.unlink, cut, flip])
@pytest.mark.parametrize("pattern", ["*.flac", "*.trans.txt", "corpus.json"])
def test_damage_is_repaired(tiny: DemoCorpus, damage, pattern: str):
    whole = contents(tiny.folder)
    damage(sorted(tiny.folder.rglob(pattern))[0])
    assert contents(tiny.folder) != whole
    assert rebuilt(tiny) == tiny
    assert contents(tiny.folder) == whole
    assert [p.name for p in tiny.folder.parent.iterdir()] == ["tiny"]


@pytest.mark.parametrize("key", ["version", "seed", "scale", "files"])
def test_corpus_of_another_kind_is_rebuilt(tiny: DemoCorpus, key: str):
    whole = contents(tiny.folder)
    path = tiny.folder / "corpus.json"
    marker = json.loads(path.read_text(encoding="utf-8"))
    marker[key] = 99
    path.write_text(json.dumps(marker), encoding="utf-8")
    rebuilt(tiny)
    assert contents(tiny.folder) == whole


def test_interrupted_rebuild_leaves_the_old_corpus(
    tiny: DemoCorpus, monkeypatch: pytest.MonkeyPatch
):
    def interrupt(_job: object) -> None:
        raise KeyboardInterrupt

    whole = contents(tiny.folder)
    monkeypatch.setattr(demo, "_render", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_demo_corpus(tiny.folder, seed=2, scale=1e-3, progress=False)
    assert contents(tiny.folder) == whole
    assert [p.name for p in tiny.folder.parent.iterdir()] == ["tiny"]


@pytest.mark.parametrize(
    "foreign",
    ["notes.txt", "dev-clean/84/121123/84-121123-0000.flac", "train/9001/x"],
)
def test_foreign_folder_is_refused(tmp_path: Path, foreign: str):
    path = tmp_path / "mine" / foreign
    path.parent.mkdir(parents=True)
    path.write_text("precious", encoding="utf-8")
    with pytest.raises(InputError, match=foreign.split("/")[0]):
        build_demo_corpus(tmp_path / "mine", scale=1e-3, progress=False)
    assert path.read_text(encoding="utf-8") == "precious"


def test_file_in_the_way_and_unwritable_folder(tmp_path: Path):
    pytest.importorskip("espeakng_loader")
    path = tmp_path / "file"
    path.write_text("precious", encoding="utf-8")
    with pytest.raises(InputError, match="is a file"):
        build_demo_corpus(path, progress=False)
    with pytest.raises(InputError, match="cannot be written"):
        build_demo_corpus(path / "below", progress=False)


def test_full_disk_is_the_users_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("espeakng_loader")

    def no_space(_job: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo, "_render", no_space)
    with pytest.raises(InputError, match="No space left"):
        build_demo_corpus(tmp_path / "new", scale=1e-3, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed, scale", [(-1, 1.0), (1, 0.0), (1, -2.0)])
def test_arguments_out_of_range(tmp_path: Path, seed: int, scale: float):
    with pytest.raises(InputError, match="seed|scale"):
        build_demo_corpus(tmp_path / "x", seed, scale, progress=False)


def test_missing_extra_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(InputError, match=r"speechbrain-ee\[demo\]"):
        build_demo_corpus(tmp_path / "x", scale=1e-3, progress=False)
    assert list(tmp_path.iterdir()) == []
