"""Transcribing recordings: what is written where, and what the status says.

Protects: outputs in order and under their own names, outputs that survive an
interrupt, the recordings themselves, a folder whose one bad file ends the
run, and memory that grows with the length of a recording.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import json
import os
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from speechbrain_ee.errors import InputError
from speechbrain_ee.inference import transcribe as command
from speechbrain_ee.inference.asr import EarlyExitASR
from speechbrain_ee.inference.recordings import Recording, find_recordings
from speechbrain_ee.inference.segmentation import Cutting
from speechbrain_ee.inference.transcribe import (
    add_arguments,
    make_controller,
    transcribe,
)
from speechbrain_ee.inference.transcriber import (
    Transcriber,
    Transcript,
    batches_of_like_length,
    in_order,
)
from tests.inference.heard import RATE, Echo, record, speech
from tests.inference.live_runs import folder_of, live_model


def run(
    inputs: list[Path], form: str = "txt", out: Path | str | None = None, **more
) -> int:
    """The command without its model; the exit status."""
    transcriber = Transcriber(more.pop("asr", Echo()), **more)
    recordings = find_recordings([str(each) for each in inputs])
    return transcribe(transcriber, recordings, form, out and str(out))


def written(
    folder: Path, out: Path, asr: Any = None
) -> tuple[int, dict[str, str]]:
    """The exit status, and what was written by name."""
    status = run([folder], "txt", out, asr=asr or Echo())
    texts = {p.stem: p.read_text().strip() for p in out.glob("*.txt")}
    return status, texts


def test_several_files_have_names(tmp_path: Path, capsys) -> None:
    for number, samples in enumerate([9000, 4000, 30000, 100]):
        record(tmp_path / "d" / f"{number}.flac", samples)
    record(tmp_path / "d" / "e" / "f.wav", 77)
    (tmp_path / "d" / "notes.md").touch()
    (tmp_path / "d" / ".hidden.wav").touch()
    assert run([tmp_path / "d"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "0\tn9000",
        "1\tn4000",
        "2\tn30000",
        "3\tn100",
        "e/f\tn77",
    ]


def test_a_file_or_a_folder(tmp_path: Path) -> None:
    inputs = [record(tmp_path / f"{n}.wav", 1000 * n) for n in (1, 2)]
    assert run(inputs, "txt", tmp_path / "all.txt") == 0
    assert (tmp_path / "all.txt").read_text() == "1\tn1000\n2\tn2000\n"
    assert run(inputs, "txt", tmp_path / "each") == 0
    assert (tmp_path / "each" / "2.txt").read_text() == "n2000\n"
    assert run(inputs, "srt", tmp_path / "each") == 0
    assert (tmp_path / "each" / "1.srt").read_text().startswith("1\n00:00:00")
    assert sorted(os.listdir(tmp_path / "each")) == [
        f"{n}.{kind}" for n in (1, 2) for kind in ("srt", "txt")
    ]


def test_json_is_one_document(tmp_path: Path, capsys) -> None:
    inputs = [record(tmp_path / f"{n}.wav", 8000 * n) for n in (1, 2)]
    inputs.insert(1, str(tmp_path / "gone.wav"))
    assert run(inputs, "json") == 1
    data = json.loads(capsys.readouterr().out)
    assert [each["text"] for each in data["files"]] == ["n8000", "n16000"]
    summary = data["summary"]
    assert summary["transcribed"] == 2 and summary["duration_s"] == 1.5
    assert summary["mean_layer"] == 4.0 and summary["macs"] == 2000
    assert [each["path"] for each in summary["failures"]] == [inputs[1]]
    assert run(inputs, "json", tmp_path / "out") == 1
    assert json.loads((tmp_path / "out" / "2.json").read_text())["id"] == "2"
    written = json.loads((tmp_path / "out" / "_summary.json").read_text())
    assert written["transcribed"] == 2


def test_long_recordings_are_put_together(tmp_path: Path) -> None:
    samples = speech(95)
    path = record(tmp_path / "long.wav", samples)
    asr = Echo()
    transcriber = Transcriber(asr, Cutting(max_s=10), batch_s=30)
    (found,) = transcriber.run([Recording("long", path)])
    assert isinstance(found, Transcript) and found.duration_s == 95.0
    heard = [int(text[1:]) for text in found.text.split()]
    assert sum(heard) == len(samples) and max(heard) <= 10 * RATE
    starts = [segment.start_s * RATE for segment in found.segments]
    np.testing.assert_allclose(starts, np.cumsum([0, *heard[:-1]]))
    for batch in asr.batches:
        assert len(batch) * max(batch) <= 30 * RATE
    assert transcriber.summary.duration_s == pytest.approx(95.0)


def test_early_files_are_written_while_later_are_read(tmp_path: Path) -> None:
    path = record(tmp_path / "a.wav", 2 * RATE)
    recordings = [Recording(str(n), path) for n in range(100)]
    asr = Echo()
    results = Transcriber(asr, batch_s=8).run(recordings)
    assert next(results).id == "0"
    assert sum(map(len, asr.batches)) <= 16
    assert [each.id for each in results] == [str(n) for n in range(1, 100)]


def test_one_bad_piece_does_not_spoil_its_batch(tmp_path: Path) -> None:
    paths = [record(tmp_path / f"{n}.wav", n) for n in (3000, 4000, 5000)]
    transcriber = Transcriber(Echo(refuses=4000))
    found = [*transcriber.run([Recording(p, p) for p in paths])]
    assert [getattr(each, "text", None) for each in found] == [
        "n3000",
        None,
        "n5000",
    ]
    assert "4000.wav: from 0.00 to 0.25 s: not this one." in found[1].reason


class Ended(Echo):
    """Someone presses Ctrl-C at the third batch, or it fails."""

    def __init__(self, error: type[BaseException] = KeyboardInterrupt):
        super().__init__()
        self.error = error

    def recognise(self, waves, policy=None):
        if len(self.batches) == 2:
            raise self.error
        return super().recognise(waves, policy)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_is_done_stays(tmp_path: Path, error) -> None:
    paths = [record(tmp_path / f"{n}.wav", 8 * RATE) for n in range(8)]
    for out in ("all.json", "each"):
        given = (paths, "json", tmp_path / out)
        if error is RuntimeError:
            with pytest.raises(RuntimeError):
                run(*given, asr=Ended(error), batch_s=8)
        else:
            assert run(*given, asr=Ended(error), batch_s=8) == 130
    data = json.loads((tmp_path / "all.json").read_text())
    assert [each["id"] for each in data["files"]] == ["0", "1"]
    names = ["0.json", "1.json", "_summary.json"]
    assert sorted(os.listdir(tmp_path / "each")) == names


def test_one_long_recording_is_kept_as_far_as_it_came(tmp_path: Path) -> None:
    path = record(tmp_path / "long.wav", speech(95))
    out = tmp_path / "long.json"
    asr = Ended()
    options = dict(cutting=Cutting(max_s=10), batch_s=10)
    assert run([path], "json", out, asr=asr, **options) == 130
    (found,) = json.loads(out.read_text())["files"]
    # batches go by length: only the pieces from the beginning on count
    assert len(found["segments"]) <= 2
    assert all(each["start_s"] < 20 for each in found["segments"])
    assert found["fault"].startswith("interrupted after")


def test_recordings_are_never_overwritten(tmp_path: Path) -> None:
    path = record(tmp_path / "a.wav", 5000)
    before = Path(path).read_bytes()
    with pytest.raises(InputError, match="overwritten"):
        run([path], out=path)
    assert Path(path).read_bytes() == before


def test_subtitle_files_of_several_need_a_folder(tmp_path: Path) -> None:
    paths = [record(tmp_path / f"{n}.wav", 100) for n in (1, 2)]
    for form in ("srt", "vtt"):
        with pytest.raises(InputError, match="folder with --out"):
            run(paths, form, tmp_path / f"all.{form}")


class Falling:
    """A controller that goes one exit down with every batch."""

    def __init__(self):
        self.policy = 4
        self.seen = []

    def observe(self, audio_s, wall_s, macs=None):
        """Note it."""
        self.seen.append((audio_s, macs))
        assert wall_s > 0
        self.policy -= 1


def test_the_controller_is_asked_for_every_batch(tmp_path: Path) -> None:
    paths = [record(tmp_path / f"{n}.wav", RATE) for n in range(3)]
    asr, controller = Echo(), Falling()
    assert run(paths, asr=asr, batch_s=1, controller=controller) == 0
    assert asr.policies == [4, 3, 2]
    assert controller.seen == [(1.0, 1000)] * 3


def parsed(*arguments: str) -> argparse.Namespace:
    """A command line."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    "option", ["--batch-s=0", "--max-s=nan", "--deadline=-1", "--threads=0"]
)
def test_numbers_that_make_no_sense(option: str) -> None:
    with pytest.raises(InputError, match=option.partition("=")[0]):
        command.run(parsed("a.wav", "--model=m", option))


def test_the_command_hands_its_arguments_on(tmp_path, monkeypatch, capsys):
    calls = []

    def from_hparams(source, run_opts, policy, vad):
        calls.append((source, run_opts, policy))
        return Echo()

    fake = SimpleNamespace(from_hparams=from_hparams)
    monkeypatch.setattr(command, "EarlyExitASR", fake)
    path = record(tmp_path / "a.wav", 5000)
    command.run(parsed(path, "--model=m", "--policy=macs=60%"))
    assert calls == [("m", {"device": "cpu"}, "macs=60%")]
    assert capsys.readouterr().out == "n5000\n"
    with pytest.raises(SystemExit) as left:
        command.run(parsed(str(tmp_path / "gone.wav"), "--model=m"))
    assert left.value.code == 2


def test_the_bar_is_for_terminals(tmp_path: Path, monkeypatch, capsys) -> None:
    path = record(tmp_path / "a.wav", 5000)
    run([path])
    assert "layers" not in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    run([path])
    shown = capsys.readouterr()
    assert "real-time factor" in shown.err and "4.0 layers" in shown.err
    assert shown.out == "n5000\n"


@pytest.fixture(scope="module")
def tiny() -> EarlyExitASR:
    return EarlyExitASR(folder_of(live_model()), policy=2, vad="off")


def test_all_kinds_of_recordings(tmp_path: Path, tiny, caplog) -> None:
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
    status, texts = written(folder, tmp_path / "out", tiny)
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
    folder = tmp_path / "in"
    for n, seconds in enumerate([0.3, 2.5, 1.1, 24.0]):
        record(folder / f"{n}.wav", speech(seconds, seed=n))
    together = written(folder, tmp_path / "out", tiny)[1]
    for path in folder.iterdir():
        (recording,) = find_recordings([str(path)])
        (alone,) = Transcriber(tiny).run([recording])
        assert alone.text == together[path.stem]


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    pcm = (speech(60) * 32767).astype(np.int16)
    peaks = []
    for minutes in (10, 40):
        path = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
            for _ in range(minutes):
                file.write(pcm)
        recordings = find_recordings([str(path)])
        tracemalloc.start()
        (found,) = Transcriber(Echo(), batch_s=30).run(recordings)
        peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
        assert found.duration_s == 60 * minutes
    assert peaks[1] < peaks[0] + 2 and peaks[1] < 40, peaks


@given(
    lengths=st.lists(st.floats(0.001, 25), max_size=80),
    batch_s=st.floats(1, 100),
)
def test_every_item_once_within_the_bound(lengths, batch_s) -> None:
    batches = [*batches_of_like_length(lengths, float, batch_s)]
    for batch in batches:
        longest = max(length for _, length in batch)
        assert len(batch) * longest <= batch_s or len(batch) == 1
    assert [*in_order(each for b in batches for each in b)] == lengths


def test_a_deadline_needs_to_know_what_exits_cost(exported):
    asr = EarlyExitASR.from_hparams(exported("digits"))
    asr.folder = replace(asr.folder, calibration=None)
    with pytest.raises(InputError, match="calibration.jsonl.gz"):
        make_controller(asr, 0.5)


def test_a_deadline_lowers_what_was_asked_for(exported):
    folder = exported("digits")
    asr = EarlyExitASR.from_hparams(folder, policy=2)
    fixed = make_controller(asr, 0.5).ladder
    assert [rung.policy.exits for rung in fixed][-1:] == [(2,)]
    assert all(rung.policy.rule is None for rung in fixed)
    assert fixed[-1].policy == asr.policy
