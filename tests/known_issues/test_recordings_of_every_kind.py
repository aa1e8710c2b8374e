"""Recordings as phones, browsers and pipes make them.

Channels in antiphase cancelled to nonsense without a word, a folder left out
what soundfile does not read, and a WAV that says 0 bytes held no audio.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechbrain_ee.data.audio import AudioReader
from speechbrain_ee.errors import InputError
from speechbrain_ee.inference import recordings as stream
from speechbrain_ee.inference.recordings import AudioStream, find_recordings
from speechbrain_ee.inference.transcribe import (
    transcribe,
)
from speechbrain_ee.inference.transcriber import (
    Transcriber,
)
from tests.inference.heard import RATE, Echo, record, speech


def heard(path: str, channel: int | None = None) -> np.ndarray:
    """All samples of a recording."""
    with AudioStream(path, RATE, channel) as audio:
        return np.concatenate([*audio])


def test_channels_that_cancel(tmp_path: Path, caplog) -> None:
    """The louder one is taken, with a word; in training, too."""
    wave = speech(3)
    both = np.stack([wave, -0.9 * wave], axis=1)
    path = record(tmp_path / "phone.wav", both)
    for read in (heard, AudioReader()):
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
        np.testing.assert_allclose(heard(path), both.mean(axis=1), atol=1e-6)
    six = np.zeros((len(one), 6), np.float32)
    six[:, 2] = one
    path = record(tmp_path / "six.wav", six, subtype="FLOAT")
    np.testing.assert_allclose(heard(path), one / 6, atol=1e-6)
    assert not caplog.records


def test_a_channel_is_chosen(tmp_path: Path) -> None:
    both = np.stack([speech(2), speech(2, seed=1)], axis=1)
    path = record(tmp_path / "call.wav", both, subtype="FLOAT")
    for channel in (1, 2):
        found = heard(path, channel)
        np.testing.assert_array_equal(found, both[:, channel - 1])
    with pytest.raises(InputError, match="call.wav: has 2 channel.*3 is want"):
        AudioStream(path, RATE, 3)
    mono = record(tmp_path / "mono.wav", 5000)
    found = Transcriber(Echo(), channel=2).run(find_recordings([mono, path]))
    failed, said = found
    assert "mono.wav: has 1 channel" in failed.reason
    assert said.text == f"n{2 * RATE}"


def test_sizes_that_were_never_filled_in(tmp_path: Path) -> None:
    whole = Path(record(tmp_path / "a.wav", 40_000))
    content = bytearray(whole.read_bytes())
    place = content.index(b"data")
    content[place + 4 : place + 8] = bytes(4)
    for riff in (0, place):
        content[4:8] = riff.to_bytes(4, "little")
        path = tmp_path / "piped.wav"
        path.write_bytes(content)
        np.testing.assert_array_equal(heard(str(path)), heard(str(whole)))
    empty = Path(record(tmp_path / "empty.wav", np.zeros(0, np.float32)))
    listed = empty.read_bytes() + b"LIST\x04\0\0\0INFO"
    listed = listed[:4] + (len(listed) - 8).to_bytes(4, "little") + listed[8:]
    (tmp_path / "listed.wav").write_bytes(listed)
    for path in (empty, tmp_path / "listed.wav"):
        with pytest.raises(InputError, match="holds no audio"):
            heard(str(path))


def test_nothing_is_left_out_of_a_folder(tmp_path, monkeypatch):
    record(tmp_path / "in" / "a.wav", 5000)
    media = ["b.m4a", "c.webm", "d.mp4", "e.wma", "f.AMR"]
    for name in media:
        (tmp_path / "in" / name).write_bytes(b"\0\0\0\x20ftypM4A " + bytes(99))
    monkeypatch.setattr(stream, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    recordings = find_recordings([str(tmp_path / "in")])
    out = tmp_path / "all.json"
    assert transcribe(Transcriber(Echo()), recordings, "json", str(out)) == 1
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
        found = heard(str(path), channel)
        wanted = heard(str(tmp_path / "talk.wav"), channel)
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
            heard(str(tmp_path / name))
