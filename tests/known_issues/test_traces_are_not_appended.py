"""Evaluating again replaces the trace of the evaluation before.

Trap avoided: evaluation files opened in append mode. A second run then
doubles every utterance, and the error rate stays plausible.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits import (
    ExitRecord,
    TraceHeader,
    UtteranceRecord,
    read_trace,
    write_trace,
)

HEADER = TraceHeader("m", "greedy", (2, 4))


def utterances(count: int) -> list[UtteranceRecord]:
    """So many utterances of one set."""
    exits = (ExitRecord(2, "a"), ExitRecord(4, "a b"))
    return [UtteranceRecord(f"u{i}", "s", "a b", exits) for i in range(count)]


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_the_second_trace_stands_alone(tmp_path: Path, name: str) -> None:
    """The bytes after two runs are those of the second run."""
    once, twice = tmp_path / "once" / name, tmp_path / "twice" / name
    write_trace(once, HEADER, utterances(3))
    write_trace(twice, HEADER, utterances(5))
    write_trace(twice, HEADER, utterances(3))
    assert twice.read_bytes() == once.read_bytes()
    assert len(read_trace(twice)) == 3


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_an_appended_trace_is_refused(tmp_path: Path, name: str) -> None:
    """Two runs in one file: the second header gives it away."""
    path = tmp_path / name
    write_trace(path, HEADER, utterances(3))
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(InputError, match=r"line 5, field "):
        read_trace(path)
    # without its header, the names do
    lines = tmp_path / "lines.jsonl"
    write_trace(lines, HEADER, utterances(3))
    with open(lines, "ab") as stream:
        stream.write(lines.read_bytes().split(b"\n", 1)[1])
    with pytest.raises(InputError, match="line 5, field id.*line 2"):
        read_trace(lines)
