"""The command: what is written where, and what the exit status says.

Protects: outputs in order and under their own names, outputs that survive an
interrupt, and the recordings themselves.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.inference import transcribe as command
from speechbrain_ee.inference.recordings import Recording, find_recordings
from speechbrain_ee.inference.segmentation import Cutting
from speechbrain_ee.inference.transcribe import add_arguments, transcribe
from speechbrain_ee.inference.transcriber import Transcriber
from speechbrain_ee.inference.transcripts import Transcript
from tests.inference.heard import RATE, Echo, record, speech


def run(
    inputs: list[Path], form: str = "txt", out: Path | str | None = None, **more
) -> int:
    """The command without its model; the exit status."""
    transcriber = Transcriber(more.pop("asr", Echo()), **more)
    recordings = find_recordings([str(each) for each in inputs])
    return transcribe(transcriber, recordings, form, out and str(out))


def test_one_file_is_its_text_alone(tmp_path: Path, capsys) -> None:
    """Nothing else on standard output."""
    path = record(tmp_path / "a.wav", 5000)
    assert run([path]) == 0
    assert capsys.readouterr().out == "n5000\n"


def test_several_files_have_names(tmp_path: Path, capsys) -> None:
    """In the order of the folder, whatever their lengths."""
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
    """A suffix makes a file; a folder has one for each recording."""
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
    """Files and a summary; in a folder, each by itself."""
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


def test_names_tell_recordings_apart(tmp_path: Path) -> None:
    """Suffixes and folders join the name only where they are needed."""
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


def test_long_recordings_are_put_together(tmp_path: Path) -> None:
    """Every sample is heard once, in batches within the bound, in order."""
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
    assert transcriber.summary().duration_s == pytest.approx(95.0)


def test_early_files_are_written_while_later_are_read(tmp_path: Path) -> None:
    """The first result does not wait for the last file."""
    path = record(tmp_path / "a.wav", 2 * RATE)
    recordings = [Recording(str(n), path) for n in range(100)]
    asr = Echo()
    results = Transcriber(asr, batch_s=8).run(recordings)
    assert next(results).id == "0"
    assert sum(map(len, asr.batches)) <= 16
    assert [each.id for each in results] == [str(n) for n in range(1, 100)]


def test_one_bad_piece_does_not_spoil_its_batch(tmp_path: Path) -> None:
    """What the recogniser refuses is reported under its file's name."""
    paths = [record(tmp_path / f"{n}.wav", n) for n in (3000, 4000, 5000)]
    transcriber = Transcriber(Echo(refuses=4000))
    found = [*transcriber.run([Recording(p, p) for p in paths])]
    assert [getattr(each, "text", None) for each in found] == [
        "n3000",
        None,
        "n5000",
    ]
    assert "4000.wav: from 0.00 to 0.25 s: not this one." in found[1].reason


class Interrupted(Echo):
    """Someone presses Ctrl-C at the third batch."""

    def recognise(self, waves, policy=None):
        """As usual, twice."""
        if len(self.batches) == 2:
            raise KeyboardInterrupt
        return super().recognise(waves, policy)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_is_done_stays(tmp_path: Path, error) -> None:
    """An interrupt, or an error of ours, leaves whole files."""
    paths = [record(tmp_path / f"{n}.wav", 8 * RATE) for n in range(8)]

    class Ended(Interrupted):
        def recognise(self, waves, policy=None):
            try:
                return super().recognise(waves, policy)
            except KeyboardInterrupt:
                raise error from None

    for out in ("all.json", "each"):
        arguments = dict(asr=Ended(), batch_s=8)
        if error is RuntimeError:
            with pytest.raises(RuntimeError):
                run(paths, "json", tmp_path / out, **arguments)
        else:
            assert run(paths, "json", tmp_path / out, **arguments) == 130
    data = json.loads((tmp_path / "all.json").read_text())
    assert [each["id"] for each in data["files"]] == ["0", "1"]
    assert sorted(os.listdir(tmp_path / "each")) == [
        "0.json",
        "1.json",
        "_summary.json",
    ]


def test_one_long_recording_is_kept_as_far_as_it_came(tmp_path: Path) -> None:
    """Interrupted: the pieces that are done, and where it stopped."""
    path = record(tmp_path / "long.wav", speech(95))
    out = tmp_path / "long.json"
    asr = Interrupted()
    options = dict(cutting=Cutting(max_s=10), batch_s=10)
    assert run([path], "json", out, asr=asr, **options) == 130
    (found,) = json.loads(out.read_text())["files"]
    # batches go by length: only the pieces from the beginning on count
    assert len(found["segments"]) <= 2
    assert all(each["start_s"] < 20 for each in found["segments"])
    assert found["fault"].startswith("interrupted after")


def test_recordings_are_never_overwritten(tmp_path: Path) -> None:
    """`--out` with the name of an input is a slip."""
    path = record(tmp_path / "a.wav", 5000)
    before = Path(path).read_bytes()
    with pytest.raises(InputError, match="overwritten"):
        run([path], out=path)
    assert Path(path).read_bytes() == before


def test_subtitle_files_of_several_need_a_folder(tmp_path: Path) -> None:
    """No player takes several in one file."""
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
    """Its policy is followed, and it learns what a batch was."""
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
    """Refused by name, before anything is read."""
    with pytest.raises(InputError, match=option.partition("=")[0]):
        command.run(parsed("a.wav", "--model=m", option))


def test_the_command_hands_its_arguments_on(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    """Model, device and policy go to the recogniser; status 2 gets out."""
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
    """Real-time factor and layers, on standard error, if anyone looks."""
    path = record(tmp_path / "a.wav", 5000)
    run([path])
    assert "layers" not in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    run([path])
    shown = capsys.readouterr()
    assert "real-time factor" in shown.err and "4.0 layers" in shown.err
    assert shown.out == "n5000\n"
