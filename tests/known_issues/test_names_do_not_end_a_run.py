"""Names, terminals and disks that a run of transcription meets.

One name that is not UTF-8 ended a whole folder with a traceback, a line break
in a name broke a line of the output in two, and a full disk spoke of training.

Authors
 * The speechbrain-ee contributors 2026
"""

import io
import json
import logging
import os
import sys
from pathlib import Path

import pytest

from speechbrain_ee.__main__ import main
from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.trace_file import write_trace
from speechbrain_ee.inference.recordings import find_recordings
from speechbrain_ee.inference.transcribe import transcribe
from speechbrain_ee.inference.transcriber import Transcriber
from tests.inference.heard import Echo, hypothesis, record
from tests.spoken import spoken

BYTES = os.fsdecode(b"n\xff.wav")
BROKEN = "two\nlines\t.wav"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, samples in ((BYTES, 1000), (BROKEN, 2000), ("z.wav", 3000)):
        plain = Path(record(tmp_path / "plain.wav", samples))
        (tmp_path / "in").mkdir(exist_ok=True)
        try:
            os.rename(plain, tmp_path / "in" / name)
        except OSError:
            pytest.skip("this file system takes valid names only")
    os.symlink(tmp_path / "gone.wav", tmp_path / "in" / ("a" + BYTES))
    return tmp_path / "in"


def run(inputs: list[str], form: str, out: str | None = None) -> int:
    """The exit status."""
    recordings = find_recordings(inputs)
    return transcribe(Transcriber(Echo()), recordings, form, out)


def test_only_the_file_that_cannot_be_read_fails(folder, tmp_path, caplog):
    out = tmp_path / "all.json"
    assert run([str(folder)], "json", str(out)) == 1
    data = json.loads(out.read_text(encoding="utf-8"))
    assert [each["text"] for each in data["files"]] == [
        "n1000",
        "n2000",
        "n3000",
    ]
    assert data["files"][0]["id"] == "n\\xff"
    (failure,) = data["summary"]["failures"]
    assert failure["path"].endswith("an\\xff.wav")
    assert "No such file" in failure["reason"]
    assert run([str(folder)], "txt", str(tmp_path / "each")) == 1
    written = tmp_path / "each" / BYTES.replace(".wav", ".txt")
    assert written.read_text() == "n1000\n"
    assert all("\n" not in each.getMessage() for each in caplog.records)


@pytest.mark.parametrize("form", ["txt", "ctm", "srt", "vtt"])
def test_a_name_stays_on_its_line(folder: Path, form: str, capsys) -> None:
    os.remove(folder / ("a" + BYTES))
    assert run([str(folder)], form) == 0
    shown = capsys.readouterr().out
    if form == "txt":
        assert [line.split("\t") for line in shown.splitlines()] == [
            ["n\\xff", "n1000"],
            ["two\\nlines\\t", "n2000"],
            ["z", "n3000"],
        ]
    else:
        assert "two\\nlines\\t" in shown


def test_the_same_file_twice_is_said(tmp_path: Path, caplog) -> None:
    path = record(tmp_path / "in" / "a.wav", 1000)
    (tmp_path / "in" / "b.wav").symlink_to(path)
    with caplog.at_level(logging.WARNING):
        found = find_recordings([path, str(tmp_path / "in"), path])
    assert [each.id for each in found] == ["a"]
    assert caplog.text.count("transcribed once") == 3
    assert "b.wav: the same recording as" in caplog.text


class Accents(Echo):
    """Says what ASCII cannot hold."""

    def recognise(self, waves, policy=None):
        """One word."""
        return [hypothesis("DÉJÀ") for _ in waves]


@pytest.mark.parametrize("form", ["txt", "json", "srt"])
def test_an_output_that_is_not_utf8(tmp_path, monkeypatch, form):
    path = record(tmp_path / "é.wav", 5000)
    binary = io.BytesIO()
    ascii_only = io.TextIOWrapper(binary, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    transcriber = Transcriber(Accents())
    assert transcribe(transcriber, find_recordings([path]), form) == 0
    assert "DÉJÀ" in binary.getvalue().decode("utf-8")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_speaks_of_the_output(tmp_path, monkeypatch):
    path = record(tmp_path / "a.wav", 5000)
    full = io.TextIOWrapper(open("/dev/full", "wb"))
    monkeypatch.setattr(sys, "stdout", full)
    with pytest.raises(InputError) as told:
        run([path], "txt")
    assert "standard output: cannot be written" in str(told.value)
    assert "training" not in str(told.value)


def test_other_commands_and_outputs_they_cannot_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    trace = spoken(20, name="dév")
    path = tmp_path / "dév.jsonl"
    write_trace(path, trace.header, trace.records)
    given = ["calibrate", "--trace", str(path), "--criterion", "entropy"]
    given += ["--budget", "layers=5", "--method", "naive"]
    given += ["--out", str(tmp_path / "policy.yaml")]
    binary = io.BytesIO()
    ascii_only = io.TextIOWrapper(binary, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    main(given)
    assert b"d\\xe9v" in binary.getvalue()
    if os.path.exists("/dev/full"):
        full = io.TextIOWrapper(open("/dev/full", "wb"))
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as left:
            main(given)
        assert left.value.code == 2
        assert "error: standard output" in capsys.readouterr().err
        full.flush()  # what was not written is not tried again


def test_a_run_in_which_all_fails_says_so_once(tmp_path: Path, caplog) -> None:
    with caplog.at_level(logging.INFO):
        assert run([str(tmp_path / "gone.wav")], "txt") == 2
    assert len(caplog.records) == 1
    assert "gone.wav" in caplog.text
