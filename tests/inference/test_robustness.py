"""Whatever the recordings are like, the good ones are transcribed.

Protects: a folder whose one bad file ends the run, recordings that the model
cannot take, and memory that grows with the length of a recording.

Authors
 * The speechbrain-ee contributors 2026
"""

import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from torch import Tensor

from speechbrain_ee.inference.hypothesis import Hypothesis
from speechbrain_ee.inference.recordings import find_recordings
from speechbrain_ee.inference.runner import LivePolicy
from speechbrain_ee.inference.transcribe import transcribe
from speechbrain_ee.inference.transcriber import Transcriber
from tests.helpers import padded
from tests.inference.heard import RATE, Echo, record, speech
from tests.inference.live_runs import EXITS, live_model, runner_of

HOUR_MB = 2048
# A process of its own: the peak of this one says nothing.
HOUR = """
import sys
from pathlib import Path
from speechbrain_ee.inference.recordings import find_recordings
from speechbrain_ee.inference.transcriber import Transcriber
from tests.inference.test_robustness import TinyASR

(found,) = Transcriber(TinyASR()).run(find_recordings([sys.argv[1]]))
status = Path("/proc/self/status").read_text()
peak = int(status.split("VmHWM:")[1].split()[0]) // 1024
sys.stdout.write(f"{found.duration_s:.3f} {len(found.segments)} {peak}\\n")
"""


class TinyASR:
    """A real model with random weights that stops at its second exit."""

    sample_rate = RATE

    def __init__(self):
        self.runner = runner_of(live_model())

    def recognise(
        self, waves: Sequence[Tensor], policy: Any = None
    ) -> list[Hypothesis]:
        """Live, as a batch."""
        return self.runner.run(*padded(waves), LivePolicy.fixed(2, EXITS))


@pytest.fixture(scope="module")
def tiny() -> TinyASR:
    """One for all."""
    return TinyASR()


def run(asr: Any, folder: Path, out: Path) -> tuple[int, dict[str, str]]:
    """The exit status, and what was written by name."""
    recordings = find_recordings([str(folder)])
    status = transcribe(Transcriber(asr), recordings, "txt", str(out))
    texts = {p.stem: p.read_text().strip() for p in out.glob("*.txt")}
    return status, texts


def test_all_kinds_of_recordings(tmp_path: Path, tiny, caplog) -> None:
    """Strange ones are transcribed, bad ones reported with the reason."""
    folder = tmp_path / "in"
    noise = speech(2)
    for name, samples, rate, subtype in (
        ("plain", noise, RATE, None),
        ("one_sample", noise[:1], RATE, None),
        ("short", noise[:50], RATE, None),
        ("silent", np.zeros(RATE), RATE, None),
        ("clipped", np.sign(noise), RATE, None),
        ("loud", 1000 * noise, RATE, "FLOAT"),
        ("slow", noise, 8000, None),
        ("cd", noise, 44100, None),
        ("studio", noise, 48000, "PCM_24"),
        ("stereo", np.stack([noise, noise], axis=1), RATE, None),
        ("long", speech(50), RATE, None),
        ("empty", noise[:0], RATE, None),
        (
            "nan",
            np.where(np.arange(len(noise)) == 99, np.nan, noise),
            RATE,
            "FLOAT",
        ),
    ):
        record(folder / f"{name}.wav", samples, rate, subtype)
    whole = Path(record(folder / "truncated.flac", speech(10))).read_bytes()
    (folder / "truncated.flac").write_bytes(whole[: len(whole) // 2])
    (folder / "text.wav").write_text("no audio")
    (folder / "link.wav").symlink_to("gone.wav")
    status, texts = run(tiny, folder, tmp_path / "out")
    assert status == 1
    bad = {"empty", "nan", "text", "link"}
    assert {*texts} == {p.stem for p in folder.iterdir()} - bad
    assert texts["plain"] and texts["stereo"] == texts["plain"]
    reported = [
        r.getMessage() for r in caplog.records if r.levelname == "ERROR"
    ]
    for name, reason in {
        "empty.wav": "holds no audio",
        "nan.wav": "not finite",
        "text.wav": "no audio in a known format",
        "link.wav": "No such file",
        "truncated.flac": "breaks off: 10.00 s announced",
    }.items():
        assert any(name in line and reason in line for line in reported), name
    assert len(reported) == 5


def test_alone_or_in_a_batch(tmp_path: Path, tiny) -> None:
    """A recording's transcript does not depend on its neighbours."""
    folder = tmp_path / "in"
    for n, seconds in enumerate([0.3, 2.5, 1.1, 24.0]):
        record(folder / f"{n}.wav", speech(seconds, seed=n))
    together = run(tiny, folder, tmp_path / "out")[1]
    for path in folder.iterdir():
        (recording,) = find_recordings([str(path)])
        (alone,) = Transcriber(tiny).run([recording])
        assert alone.text == together[path.stem]


def test_ninety_nine_of_a_hundred(tmp_path: Path, caplog) -> None:
    """One bad file among a hundred is the only one that is missing."""
    folder = tmp_path / "in"
    for number in range(100):
        record(folder / f"{number:02d}.wav", 1000 + number)
    (folder / "57.wav").write_bytes(b"RIFF" + bytes(40))
    status, texts = run(Echo(), folder, tmp_path / "out")
    assert status == 1
    assert texts == {f"{n:02d}": f"n{1000 + n}" for n in range(100) if n != 57}
    (line,) = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert "57.wav: is no audio" in line


def test_nothing_but_bad_files(tmp_path: Path) -> None:
    """Status 2, and nothing is written."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_text("no audio")
    assert run(Echo(), tmp_path / "in", tmp_path / "out") == (2, {})


def write_long(path: Path, minutes: int, rate: int, channels: int) -> None:
    """A long recording, itself written in blocks: the same minute again."""
    minute = np.stack([speech(60, rate, seed=n) for n in range(channels)], 1)
    pcm = (minute * 32767).astype(np.int16)
    with soundfile.SoundFile(path, "w", rate, channels, "PCM_16") as file:
        for _ in range(minutes):
            file.write(pcm)


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    """Ten minutes or forty: the same peak, far below the whole."""
    peaks = []
    for minutes in (10, 40):
        path = tmp_path / f"{minutes}.wav"
        write_long(path, minutes, RATE, 1)
        recordings = find_recordings([str(path)])
        tracemalloc.start()
        (found,) = Transcriber(Echo(), batch_s=30).run(recordings)
        peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
        assert found.duration_s == 60 * minutes
    assert peaks[1] < peaks[0] + 2 and peaks[1] < 40, peaks


@pytest.mark.slow
def test_an_hour_in_two_gigabytes(tmp_path: Path, repository: Path) -> None:
    """48 kHz stereo through a model, the libraries included."""
    path = tmp_path / "hour.wav"
    write_long(path, 60, 48000, 2)
    ran = subprocess.run(
        [sys.executable, "-c", HOUR, str(path)],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )
    duration_s, segments, peak_mb = ran.stdout.split()
    assert float(duration_s) == 3600
    assert int(segments) >= 180
    assert int(peak_mb) <= HOUR_MB, peak_mb
