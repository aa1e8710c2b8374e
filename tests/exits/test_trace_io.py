"""Traces as files: all of it or nothing, and the same again.

Authors
 * The speechbrain-ee contributors 2026
"""

import gzip
import json
from dataclasses import replace

import numpy as np
import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits import (
    ExitRecord,
    TraceHeader,
    UtteranceRecord,
    read_trace,
    write_trace,
)
from tests.exits.tiny_trace import HEADER, RECORDS

NAN = float("nan")
HEAD = '{"schema":"exit-trace/1","name":"m","decoding":"d","exit_layers":[2,4]}'


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_round_trip(tmp_path, name):
    path = tmp_path / "deep" / name
    write_trace(path, HEADER, RECORDS)
    trace = read_trace(path)
    assert trace.header == HEADER
    assert trace.records == RECORDS
    assert [p.name for p in path.parent.iterdir()] == [name]


def test_equal_content_gives_equal_bytes(tmp_path):
    one, two = tmp_path / "one.jsonl.gz", tmp_path / "two.jsonl.gz"
    write_trace(one, HEADER, RECORDS)
    write_trace(two, HEADER, iter(RECORDS))
    assert one.read_bytes() == two.read_bytes()


def test_what_is_none_is_left_out(tmp_path):
    path = tmp_path / "t.jsonl"
    record = UtteranceRecord("u", "s", "a", (ExitRecord(1, "a"),))
    write_trace(path, TraceHeader("m", "d", (1,)), [record])
    head, row = map(json.loads, path.read_text().splitlines())
    assert set(head) == {"schema", "name", "decoding", "exit_layers"}
    assert row == {
        "id": "u",
        "set": "s",
        "ref": "a",
        "exits": [{"layer": 1, "hyp": "a"}],
    }


DECODED = tuple(
    replace(
        record,
        exits=tuple(
            replace(exit_, macs=40 + k, greedy=greedy, decoding_macs=7 * k)
            for k, (exit_, greedy) in enumerate(
                zip(record.exits, ("", "naïve gréedy"))
            )
        ),
    )
    for record in RECORDS
)


def test_what_a_search_found_and_cost_is_kept(tmp_path):
    one, two = tmp_path / "one.jsonl.gz", tmp_path / "two.jsonl.gz"
    write_trace(one, HEADER, DECODED)
    trace = read_trace(one)
    assert trace.records == DECODED
    assert trace.decoding_macs_NE.tolist() == [[0, 7], [0, 7]]
    write_trace(two, trace.header, trace.records)
    assert one.read_bytes() == two.read_bytes()
    row = json.loads(gzip.decompress(one.read_bytes()).splitlines()[1])
    assert row["exits"][1] == {
        "layer": 4,
        "hyp": "the cat sat",
        "evidence": {"entropy": 0.1},
        "macs": 41,
        "greedy": "naïve gréedy",
        "decoding_macs": 7,
    }


def test_traces_without_a_search_are_as_before(tmp_path):
    path = tmp_path / "t.jsonl"
    exits = '[{"layer":2,"hyp":"a","macs":5},{"layer":4,"hyp":"b","macs":8}]'
    line = f'{{"id":"u","set":"s","ref":"b","exits":{exits}}}'
    path.write_text(f"{HEAD}\n{line}\n")
    trace = read_trace(path)
    exits = (ExitRecord(2, "a", macs=5), ExitRecord(4, "b", macs=8))
    assert trace.records == (UtteranceRecord("u", "s", "b", exits),)
    assert trace.decoding_macs_NE is None
    assert trace.evidence.transcripts() == [["a", "b"]]
    before = path.read_bytes()
    write_trace(path, trace.header, trace.records)
    assert [json.loads(row) for row in path.read_bytes().splitlines()] == [
        json.loads(row) for row in before.splitlines()
    ]


def second(**changes):
    """A record of which the second exit is changed."""
    first, last = RECORDS[0].exits
    return replace(RECORDS[0], id="x", exits=(first, replace(last, **changes)))


UNWRITABLE = {
    "exits": (second(layer=5), "exits"),
    "NaN": (second(evidence={"entropy": NAN}), "evidence.entropy"),
    "infinite": (second(evidence={"entropy": -np.inf}), "evidence.entropy"),
    "evidence of some": (second(evidence={}), "evidence.entropy"),
    "id twice": (RECORDS[0], "id"),
    "nothing recognised": (second(hyp=None), "hyp"),
    "half a character": (second(hyp="\ud800"), "hyp"),
    "half a greedy one": (second(greedy="\ud800"), "greedy"),
    "dear decoding": (second(macs=4, decoding_macs=5), "decoding_macs"),
    "part of no cost": (second(decoding_macs=5), "decoding_macs"),
}


@pytest.mark.parametrize("case", UNWRITABLE)
def test_nothing_is_half_written(tmp_path, case):
    record, field = UNWRITABLE[case]
    path = tmp_path / "t.jsonl.gz"
    write_trace(path, HEADER, RECORDS)
    before = path.read_bytes()
    with pytest.raises(InputError) as error:
        write_trace(path, HEADER, [*RECORDS, record])
    where, problem = str(error.value).split(": ", 1)
    assert where.startswith(f"{path}, line 4, field ")
    assert where.endswith(field)
    assert f"(utterance {record.id!r}) The trace was not written" in problem
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_header_that_cannot_be_read_is_not_written(tmp_path):
    header = replace(HEADER, exit_layers=(4, 2))
    with pytest.raises(InputError, match="line 1, field exit_layers"):
        write_trace(tmp_path / "t.jsonl", header, RECORDS)
    assert not list(tmp_path.iterdir())


def test_unwritable_target(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_trace(tmp_path / "file" / "t.jsonl", HEADER, RECORDS)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", b"", "is empty"),
        ("t.jsonl.gz", b"", "is empty"),
        ("t.jsonl.gz", gzip.compress(b"", mtime=0), "is empty"),
        ("t.jsonl", HEAD.encode() + b"\n", "no utterance"),
        ("t.jsonl.gz", HEAD.encode(), "line 1: the gzip data"),
        ("t.jsonl", b"\xff\xfe\xff", "not UTF-8"),
    ],
)
def test_unreadable_content(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_trace(path)


def test_cut_gzip_names_the_line(tmp_path):
    path = tmp_path / "t.jsonl.gz"
    generator = np.random.default_rng(0)
    exits = '[{"layer": 2, "hyp": ""}, {"layer": 4, "hyp": "a"}]'
    lines = [HEAD] + [
        f'{{"id": "{name}", "set": "s", "ref": "a", "exits": {exits}}}'
        for name in generator.random(300)
    ]
    packed = gzip.compress("\n".join(lines).encode())
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError, match=r"line \d\d+: the gzip data are cut"):
        read_trace(path)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_trace(path)


def test_cut_anywhere_is_an_error(tmp_path):
    whole, cut = tmp_path / "t.jsonl.gz", tmp_path / "cut.jsonl.gz"
    write_trace(whole, HEADER, RECORDS)
    content = whole.read_bytes()
    for size in range(len(content)):
        cut.write_bytes(content[:size])
        with pytest.raises(InputError, match="cut.jsonl.gz"):
            read_trace(cut)


def test_hypotheses_are_scored_once(tmp_path, monkeypatch):
    from speechbrain_ee.exits import trace as module

    path = tmp_path / "t.jsonl"
    exits = (ExitRecord(2, "a b", 1), ExitRecord(4, "a", 0))
    write_trace(path, HEADER, [UtteranceRecord("u", "s", "a", exits)])
    calls = []
    count = module.edit_counts
    monkeypatch.setattr(
        module, "edit_counts", lambda *a: (calls.append(a), count(*a))[1]
    )
    trace = read_trace(path)
    assert trace.errors_NE.tolist() == [[1, 0]]
    assert trace.edits_NE3.sum() == 1 and len(calls) == 1
