"""Recordings come in blocks, and the blocks are the whole of them.

Protects: seams between resampled blocks, formats, pipes, and recordings that
break off, which must not pass for whole ones.

Authors
 * The speechbrain-ee contributors 2026
"""

import io
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from speechbrain_ee.data.audio import AudioReader
from speechbrain_ee.errors import InputError
from speechbrain_ee.inference import recordings
from speechbrain_ee.inference.recordings import (
    AudioStream,
    find_recordings,
    resampled,
)
from tests.inference.heard import record, speech


def heard(path: str | Path, rate: int = 16000) -> tuple[np.ndarray, str | None]:
    """All samples of a recording, and its fault."""
    with AudioStream(path, rate) as audio:
        blocks = [*audio]
        assert all(block.dtype == np.float32 for block in blocks)
        return np.concatenate(blocks), audio.fault


@settings(max_examples=25, deadline=None)
@given(
    rates=st.sampled_from(
        [(8000, 16000), (44100, 16000), (48000, 16000), (11025, 16000)]
        + [(22050, 8000), (16000, 16000), (16000, 11025)]
    ),
    cuts=st.lists(st.integers(0, 9000), max_size=6),
    total=st.integers(1, 9000),
)
def test_blocks_resample_like_the_whole(rates, cuts, total) -> None:
    samples = speech(total / 44100 + 0.01, 44100, seed=total)[:total]
    edges = sorted({0, total, *(cut for cut in cuts if cut < total)})
    blocks = [samples[a:b] for a, b in zip(edges, edges[1:])]
    found = np.concatenate([*resampled(blocks, *rates)])
    whole = torchaudio.functional.resample(torch.from_numpy(samples), *rates)
    assert len(found) == len(whole)
    np.testing.assert_allclose(found, whole.numpy(), atol=1e-5)


def test_odd_rates_need_no_giant_filters() -> None:
    for rate in (47999, 44101, 15999, 22254):
        blocks = resampled([np.zeros(rate, np.float32)], rate, 16000)
        assert sum(map(len, blocks)) == pytest.approx(16000, abs=2), rate


@pytest.mark.parametrize(
    "name, rate, subtype",
    [
        ("a.wav", 8000, "PCM_16"),
        ("a.wav", 44100, "PCM_24"),
        ("a.flac", 48000, "PCM_24"),
        ("a.wav", 16000, "FLOAT"),
        ("a.aiff", 22050, "PCM_16"),
        ("a.ogg", 44100, "VORBIS"),
        ("a.mp3", 48000, None),
    ],
)
def test_equals_reading_at_once(tmp_path, monkeypatch, name, rate, subtype):
    monkeypatch.setattr(recordings, "BLOCK_SAMPLES", 10_000)
    stereo = np.stack([speech(2.3, rate, seed=n) for n in (1, 2)], axis=1)
    path = record(tmp_path / name, stereo, rate, subtype)
    found, fault = heard(path)
    assert fault is None
    np.testing.assert_allclose(found, AudioReader()(path).numpy(), atol=1e-4)


def test_standard_input(tmp_path: Path, monkeypatch) -> None:
    path = record(tmp_path / "a.ogg", 40000, subtype="VORBIS")
    pipe = SimpleNamespace(
        buffer=io.BytesIO(Path(path).read_bytes()), isatty=lambda: False
    )
    monkeypatch.setattr(sys, "stdin", pipe)
    np.testing.assert_array_equal(heard("-")[0], heard(path)[0])
    pipe.isatty = lambda: True
    with pytest.raises(InputError, match="keyboard"):
        AudioStream("-", 16000)


def test_named_pipe(tmp_path: Path) -> None:
    path = record(tmp_path / "a.flac", 40000)
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    content = Path(path).read_bytes()
    thread = threading.Thread(target=fifo.write_bytes, args=[content])
    thread.start()
    np.testing.assert_array_equal(heard(fifo)[0], heard(path)[0])
    thread.join()


def test_lengths_that_were_not_known(tmp_path: Path) -> None:
    wav = bytearray(Path(record(tmp_path / "a.wav", 40000)).read_bytes())
    place = wav.index(b"data")
    wav[4:8] = wav[place + 4 : place + 8] = b"\xff" * 4
    (tmp_path / "piped.wav").write_bytes(wav)
    flac = bytearray(Path(record(tmp_path / "a.flac", 40000)).read_bytes())
    flac[21] &= 0xF0  # the number of samples: 36 bits of STREAMINFO
    flac[22:26] = bytes(4)
    (tmp_path / "piped.flac").write_bytes(flac)
    for name in ("wav", "flac"):
        found, fault = heard(tmp_path / f"piped.{name}")
        assert fault is None
        np.testing.assert_array_equal(found, heard(tmp_path / f"a.{name}")[0])


@pytest.mark.parametrize(
    "name", ["a.wav", "a.flac", "a.aiff", "a.mp3", "a.ogg"]
)
def test_recordings_that_break_off(tmp_path: Path, name: str) -> None:
    path = Path(record(tmp_path / name, 160_000))
    whole, fault = heard(path)
    assert fault is None
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    found, fault = heard(path)
    assert "breaks off" in fault
    assert 0.2 * len(whole) < len(found) < 0.6 * len(whole)
    np.testing.assert_allclose(
        found[:-2000], whole[: len(found) - 2000], atol=1e-4
    )


def test_a_damaged_frame(tmp_path: Path) -> None:
    path = Path(record(tmp_path / "a.flac", 160_000))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    path.write_bytes(content)
    found, fault = heard(path)
    assert "breaks off: 10.00 s announced" in fault
    assert 70_000 < len(found) < 85_000


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_not_finite(tmp_path: Path, bad: float) -> None:
    samples = speech(3)
    samples[40_000] = bad
    path = record(tmp_path / "a.wav", samples, subtype="FLOAT")
    with pytest.raises(InputError, match="a.wav: .*not finite.* 2.50 s"):
        heard(path)


def test_what_is_no_recording(tmp_path: Path) -> None:
    (tmp_path / "text.mp3").write_bytes(b"no audio " * 1000)
    (tmp_path / "a.raw").write_bytes(bytes(1000))
    (tmp_path / "nothing.wav").touch()
    record(tmp_path / "empty.wav", np.zeros(0, np.float32))
    record(tmp_path / "slow.wav", np.zeros(100), rate=10)
    for name, reason in {
        "text.mp3": "no audio in a known format",
        "a.raw": "no audio in a known format",
        "nothing.wav": "no audio in a known format",
        "empty.wav": "holds no audio",
        "slow.wav": "10 Hz",
        "gone.wav": "No such file",
        "": "Is a directory",
    }.items():
        with pytest.raises(InputError, match=reason):
            AudioStream(tmp_path / name, 16000)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = record(tmp_path / "a.wav")
    os.chmod(path, 0)
    with pytest.raises(InputError, match="Permission denied"):
        AudioStream(path, 16000)


def test_names_tell_recordings_apart(tmp_path: Path) -> None:
    a, b = tmp_path / "x" / "a.wav", tmp_path / "x" / "b.wav"
    for path in (a, b, a.with_suffix(".flac"), tmp_path / "y" / "a.wav"):
        record(path, 10)

    def names(*inputs: Path) -> list[str]:
        return [r.id for r in find_recordings([str(each) for each in inputs])]

    assert names(a, b, a) == ["a", "b"]
    assert names(a, a.with_suffix(".flac")) == ["a.wav", "a.flac"]
    found = names(a, tmp_path / "y" / "a.wav")
    assert len({*found}) == 2 and not any(n.startswith("/") for n in found)
    assert names(tmp_path) == ["x/a.flac", "x/a.wav", "x/b.wav", "y/a.wav"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: holds no audio.*flac"):
        find_recordings([str(tmp_path / "empty")])
