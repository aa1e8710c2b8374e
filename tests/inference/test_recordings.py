"""Recordings come in blocks, and the blocks are the whole of them.

Protects: seams between resampled blocks, formats, pipes, and recordings that
break off, which must not pass for whole ones.

Authors
 * The speechbrain-ee contributors 2026
"""

import io
import json
import logging
import os
import shutil
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
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
from speechbrain_ee.inference.transcribe import transcribe
from speechbrain_ee.inference.transcriber import Transcriber
from tests.inference.heard import RATE, Echo, record, speech


def heard(
    path: str | Path, rate: int = RATE, channel: int | None = None
) -> tuple[np.ndarray, str | None]:
    """All samples of a recording, and its fault."""
    with AudioStream(path, rate, channel) as audio:
        blocks = [*audio]
        assert all(block.dtype == np.float32 for block in blocks)
        return np.concatenate(blocks), audio.fault


def samples_of(path: str | Path, channel: int | None = None) -> np.ndarray:
    return heard(path, RATE, channel)[0]


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
    """A pipe's are the largest or 0; what is empty is still empty."""
    whole = Path(record(tmp_path / "a.wav", 40000))
    wav = bytearray(whole.read_bytes())
    place = wav.index(b"data")
    for riff, data in ((-1, -1), (0, 0), (place, 0)):
        wav[4:8] = riff.to_bytes(4, "little", signed=True)
        wav[place + 4 : place + 8] = data.to_bytes(4, "little", signed=True)
        (tmp_path / "piped.wav").write_bytes(wav)
        found, fault = heard(tmp_path / "piped.wav")
        assert fault is None
        np.testing.assert_array_equal(found, samples_of(whole))
    flac = bytearray(Path(record(tmp_path / "a.flac", 40000)).read_bytes())
    flac[21] &= 0xF0  # the number of samples: 36 bits of STREAMINFO
    flac[22:26] = bytes(4)
    (tmp_path / "piped.flac").write_bytes(flac)
    found, fault = heard(tmp_path / "piped.flac")
    assert fault is None
    np.testing.assert_array_equal(found, samples_of(tmp_path / "a.flac"))
    empty = Path(record(tmp_path / "empty.wav", np.zeros(0, np.float32)))
    listed = empty.read_bytes() + b"LIST\x04\0\0\0INFO"
    listed = listed[:4] + (len(listed) - 8).to_bytes(4, "little") + listed[8:]
    (tmp_path / "listed.wav").write_bytes(listed)
    with pytest.raises(InputError, match="holds no audio"):
        AudioStream(tmp_path / "listed.wav", RATE)


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


def test_channels_that_cancel(tmp_path: Path, caplog) -> None:
    """The louder one is taken, with a word; in training, too."""
    wave = speech(3)
    both = np.stack([wave, -0.9 * wave], axis=1)
    path = record(tmp_path / "phone.wav", both)
    for read in (samples_of, AudioReader()):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            np.testing.assert_allclose(read(path), wave, atol=1e-4)
        for said in ("phone.wav", "cancel", "channel 1"):
            assert said in caplog.text


def test_channels_that_do_not_cancel(tmp_path: Path, caplog) -> None:
    one, other = speech(3), speech(3, seed=1)
    for name, right in (("same", one), ("two", other), ("none", 0 * one)):
        both = np.stack([one, right], axis=1)
        path = record(tmp_path / f"{name}.wav", both, subtype="FLOAT")
        np.testing.assert_allclose(
            samples_of(path), both.mean(axis=1), atol=1e-6
        )
    six = np.zeros((len(one), 6), np.float32)
    six[:, 2] = one
    path = record(tmp_path / "six.wav", six, subtype="FLOAT")
    np.testing.assert_allclose(samples_of(path), one / 6, atol=1e-6)
    assert not caplog.records


def test_a_channel_is_chosen(tmp_path: Path) -> None:
    both = np.stack([speech(2), speech(2, seed=1)], axis=1)
    path = record(tmp_path / "call.wav", both, subtype="FLOAT")
    for channel in (1, 2):
        found = samples_of(path, channel)
        np.testing.assert_array_equal(found, both[:, channel - 1])
    with pytest.raises(InputError, match="call.wav: has 2 channel.*3 is want"):
        AudioStream(path, RATE, 3)
    mono = record(tmp_path / "mono.wav", 5000)
    found = Transcriber(Echo(), channel=2).run(find_recordings([mono, path]))
    failed, said = found
    assert "mono.wav: has 1 channel" in failed.reason
    assert said.text == f"n{2 * RATE}"


def test_nothing_is_left_out_of_a_folder(tmp_path, monkeypatch):
    record(tmp_path / "in" / "a.wav", 5000)
    media = ["b.m4a", "c.webm", "d.mp4", "e.wma", "f.AMR"]
    for name in media:
        (tmp_path / "in" / name).write_bytes(b"\0\0\0\x20ftypM4A " + bytes(99))
    monkeypatch.setattr(recordings, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = find_recordings([str(tmp_path / "in")])
    out = tmp_path / "all.json"
    assert transcribe(Transcriber(Echo()), found, "json", str(out)) == 1
    summary = json.loads(out.read_text())["summary"]
    assert summary["transcribed"] == 1
    for failure, name in zip(summary["failures"], media, strict=True):
        assert name in failure["path"]
        assert "ffmpeg" in failure["reason"] and "media" in failure["reason"]


def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path: Path, caplog) -> None:
    record(tmp_path / "in" / "a.wav", 5000)
    os.mkfifo(tmp_path / "in" / "pipe.wav")
    (tmp_path / "in" / "locked").mkdir(mode=0)
    found = find_recordings([str(tmp_path / "in")])
    assert [each.id for each in found] == ["a"]
    assert "pipe.wav: is not a regular file" in caplog.text
    if os.geteuid():
        assert "locked: cannot be searched" in caplog.text


def test_other_formats_are_decoded(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    both = np.stack([speech(3, 44100), 0.1 * speech(3, 44100, 1)], axis=1)
    path = tmp_path / "talk.mkv"
    with av.open(path, "w") as container:
        made = container.add_stream("pcm_s16le", rate=44100, layout="stereo")
        pcm = (both * 32767).astype(np.int16)
        for part in np.array_split(pcm, 30):
            frame = av.AudioFrame.from_ndarray(
                part.reshape(1, -1), "s16", "stereo"
            )
            frame.sample_rate = 44100
            container.mux(made.encode(frame))
    soundfile.write(tmp_path / "talk.wav", both, 44100)
    for channel in (None, 1, 2):
        found = samples_of(str(path), channel)
        wanted = samples_of(str(tmp_path / "talk.wav"), channel)
        np.testing.assert_allclose(found, wanted, atol=2e-4)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with AudioStream(path, RATE) as audio:
        assert 0.2 < sum(map(len, audio)) / len(wanted) < 0.8
        assert "breaks off" in audio.fault and "3.00 s" in audio.fault


def test_no_playlist_is_followed(tmp_path: Path) -> None:
    pytest.importorskip("av")
    secret = record(tmp_path / "secret.wav", 5000)
    for name, text in (
        ("a.m3u8", f"#EXTM3U\n#EXTINF:9,\n{secret}\n#EXT-X-ENDLIST\n"),
        ("b.mp4", f"ffconcat version 1.0\nfile '{secret}'\n"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match="no audio in a known format"):
            samples_of(str(tmp_path / name))
