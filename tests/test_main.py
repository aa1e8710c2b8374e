"""The command line: what it refuses, and that it hands on what it is told.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
from pathlib import Path

import pytest

from speechbrain_ee import __version__
from speechbrain_ee.__main__ import main
from speechbrain_ee.exits.trace import (
    ExitRecord,
    TraceHeader,
    UtteranceRecord,
)
from speechbrain_ee.exits.trace_io import write_trace


@pytest.fixture
def trace_file(tmp_path: Path) -> Path:
    """A trace of two utterances and two exits."""
    records = [
        UtteranceRecord(
            f"utterance-{number}",
            "some-set",
            "one two",
            (
                ExitRecord(2, "one", evidence={"entropy": 0.3}),
                ExitRecord(4, "one two", evidence={"entropy": 0.1}),
            ),
        )
        for number in range(2)
    ]
    path = tmp_path / "trace.jsonl.gz"
    write_trace(path, TraceHeader("a model", "greedy", (2, 4)), records)
    return path


def test_report_prints_tables_and_writes_files(trace_file, tmp_path, capsys):
    out = tmp_path / "report"
    main(["report", "--trace", str(trace_file), "--out", str(out)])
    shown = capsys.readouterr().out
    assert "some-set" in shown and "oracle" in shown
    assert (out / "report.html").is_file()
    stored = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert stored["sets"]["some-set"]["wer"] == [50.0, 0.0]


def test_report_as_json_is_the_file(trace_file, tmp_path, capsys):
    out = tmp_path / "report"
    main(["report", "--trace", str(trace_file), "--out", str(out), "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert shown == json.loads((out / "report.json").read_text("utf-8"))


def test_wrong_input_is_a_paragraph_and_status_2(tmp_path, capsys):
    missing = tmp_path / "missing.jsonl.gz"
    with pytest.raises(SystemExit) as stop:
        main(["report", "--trace", str(missing), "--out", str(tmp_path)])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "missing.jsonl.gz" in error and "Traceback" not in error


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["report"]])
def test_usage_errors(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage" in capsys.readouterr().err
