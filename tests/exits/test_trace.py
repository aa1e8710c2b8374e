"""Traces: what is written is read, and what is malformed is refused.

Authors
 * The speechbrain-ee contributors 2026
"""

import gzip
import json

import numpy as np
import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits import (
    ExitRecord,
    Trace,
    TraceHeader,
    UtteranceRecord,
    read_trace,
    write_trace,
)

HEADER = TraceHeader(
    "tiny", "greedy", (2, 4), (100, 300), (10, 20), 5.0, 29, 25.0
)
RECORDS = (
    UtteranceRecord(
        "u1",
        "clean",
        "the cat sat",
        (
            ExitRecord(2, "the cats", 2, {"entropy": 0.5, "max_prob": 0.25}),
            ExitRecord(4, "the cat sat", None, {"entropy": 0.1}),
        ),
        2.5,
    ),
    UtteranceRecord(
        "u1",
        "other",
        "naïve “words”",
        (
            ExitRecord(2, None, 3, {"entropy": 1 / 3, "max_prob": 1.0}),
            ExitRecord(4, "", None, {"entropy": 1e-9}),
        ),
        10.0,
    ),
)


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


def test_nothing_is_half_written(tmp_path):
    path = tmp_path / "t.jsonl.gz"
    write_trace(path, HEADER, RECORDS)
    before = path.read_bytes()
    bad = UtteranceRecord(
        "x", "s", "a", (ExitRecord(2, "a", None, {"e": float("nan")}),) * 2
    )
    with pytest.raises(InputError, match="exits at layers"):
        write_trace(path, HEADER, [*RECORDS, bad])
    bad = UtteranceRecord(
        "x", "s", "a", (bad.exits[0], ExitRecord(4, "a", None, {}))
    )
    with pytest.raises(InputError, match="not finite"):
        write_trace(path, HEADER, [*RECORDS, bad])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_target(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_trace(tmp_path / "file" / "t.jsonl", HEADER, RECORDS)


def test_columns(tmp_path):
    trace = Trace(HEADER, RECORDS)
    assert trace.words_N.tolist() == [3, 2]
    assert trace.errors_NE.tolist() == [[2, 0], [3, 2]]
    assert trace.edits_NE3 is None
    assert trace.evidence_names == ("entropy",)
    assert trace.evidence_NE("entropy").shape == (2, 2)
    # 300 for 5 s, so half of it for 2.5 s and twice for 10 s
    assert trace.macs_NE.tolist() == [[50.0, 150.0], [200.0, 600.0]]
    with pytest.raises(InputError, match="'max_prob'.*present: entropy"):
        trace.evidence_NE("max_prob")


def test_subset_slices_what_is_known():
    trace = Trace(HEADER, RECORDS)
    fresh = trace.subset("other").errors_NE.tolist()
    trace.score()
    sliced = trace.subset("other")
    assert "errors_NE" in sliced.__dict__
    assert sliced.errors_NE.tolist() == fresh == [[3, 2]]
    assert trace.sets == ("clean", "other")
    with pytest.raises(InputError, match="'dev'.*clean, other"):
        trace.subset("dev")


def test_macs_of_the_utterance_come_first():
    exits = (ExitRecord(2, "a", macs=7), ExitRecord(4, "a", macs=9))
    trace = Trace(HEADER, (UtteranceRecord("u", "s", "a", exits, 5.0),))
    assert trace.macs_NE.tolist() == [[7.0, 9.0]]
    bare = Trace(TraceHeader("m", "d", (2, 4)), RECORDS)
    assert bare.macs_NE is None


HEAD = '{"schema":"exit-trace/1","name":"m","decoding":"d","exit_layers":[2,4]}'


def row(**changes):
    value = {
        "id": "u",
        "set": "s",
        "ref": "a b",
        "exits": [
            {"layer": 2, "hyp": "a", "evidence": {"entropy": 0.5}},
            {"layer": 4, "hyp": "a b"},
        ],
    }
    return value | changes


def with_exit(**changes):
    value = row()
    value["exits"][0] = value["exits"][0] | changes
    return value


def without(record, name):
    return {k: v for k, v in record.items() if k != name}


MALFORMED = {
    "not JSON": ("{", 2, "JSON"),
    "not an object": ("[]", 2, "JSON"),
    "missing exit": (row(exits=row()["exits"][:1]), 2, "exits"),
    "other layers": (with_exit(layer=3), 2, "exits"),
    "no exits": (without(row(), "exits"), 2, "exits"),
    "no id": (without(row(), "id"), 2, "id"),
    "ref is a number": (row(ref=3), 2, "ref"),
    "unknown field": (row(speaker="x"), 2, "speaker"),
    "unknown field of an exit": (with_exit(wer=1), 2, "exits[layer 2].wer"),
    "NaN": (
        json.dumps(with_exit(evidence={"entropy": float("nan")})),
        2,
        "JSON",
    ),
    "too large": (
        json.dumps(with_exit(evidence={"entropy": 0})).replace(
            ": 0}", ": 1e999}"
        ),
        2,
        "evidence.entropy",
    ),
    "evidence is a text": (
        with_exit(evidence={"entropy": "0.5"}),
        2,
        "evidence.entropy",
    ),
    "evidence is a truth value": (
        with_exit(evidence={"entropy": True}),
        2,
        "evidence.entropy",
    ),
    "neither hyp nor errors": (with_exit(hyp=None), 2, "exits[layer 2].hyp"),
    "negative errors": (with_exit(errors=-1), 2, "errors"),
    "hyp and errors disagree": (with_exit(errors=2), 2, "errors"),
    "duration": (row(duration_s="long"), 2, "duration_s"),
    "two with one id": (json.dumps(row()) + "\n" + json.dumps(row()), 3, "id"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_utterance(tmp_path, case):
    content, line, field = MALFORMED[case]
    if not isinstance(content, str):
        content = json.dumps(content)
    path = tmp_path / "t.jsonl"
    path.write_text(f"{HEAD}\n{content}\n")
    with pytest.raises(InputError) as error:
        read_trace(path)
    assert f"{path}, line {line}, field " in str(error.value)
    assert field in str(error.value).split(":")[0]


@pytest.mark.parametrize(
    ("header", "field"),
    [
        ('{"name": "m"}', "schema"),
        (HEAD.replace("trace/1", "trace/9"), "schema"),
        (HEAD.replace("[2,4]", "[4,2]"), "exit_layers"),
        (HEAD.replace("[2,4]", "[]"), "exit_layers"),
        (HEAD.replace(',"exit_layers":[2,4]', ""), "exit_layers"),
        (HEAD.replace('"decoding":"d",', ""), "decoding"),
        (HEAD.replace("}", ',"macs":[1]}'), "macs"),
        (HEAD.replace("}", ',"macs_reference_s":0}'), "macs_reference_s"),
        (HEAD.replace("}", ',"parameters":[1,-2]}'), "parameters"),
        (HEAD.replace("}", ',"vocab_size":2.5}'), "vocab_size"),
        (HEAD.replace("}", ',"frames_per_s":-1}'), "frames_per_s"),
    ],
)
def test_malformed_header(tmp_path, header, field):
    path = tmp_path / "t.jsonl"
    path.write_text(f"{header}\n{json.dumps(row())}\n")
    with pytest.raises(InputError) as error:
        read_trace(path)
    assert f"{path}, line 1, field {field}:" in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", b"", "is empty"),
        ("t.jsonl.gz", b"", "is empty"),
        ("t.jsonl.gz", gzip.compress(b""), "is empty"),
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
    lines = [HEAD] + [
        json.dumps(row(id=f"{np.random.default_rng(i).random()}"))
        for i in range(300)
    ]
    packed = gzip.compress("\n".join(lines).encode())
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError, match=r"line \d+: the gzip data are cut"):
        read_trace(path)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_trace(path)
