"""Traces as files: the same again, all of it or nothing, refused by line and field.

Authors
 * The speechbrain-ee contributors 2026
"""

import gzip
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
def test_round_trip_with_equal_bytes(tmp_path, name):
    path, other = tmp_path / "deep" / name, tmp_path / name
    write_trace(path, HEADER, RECORDS)
    trace = read_trace(path)
    assert trace.header == HEADER and trace.records == RECORDS
    assert [p.name for p in path.parent.iterdir()] == [name]
    write_trace(other, trace.header, iter(trace.records))
    assert other.read_bytes() == path.read_bytes()


def test_what_is_none_is_left_out(tmp_path):
    path = tmp_path / "t.jsonl"
    record = UtteranceRecord("u", "s", "a", (ExitRecord(1, "a"),))
    write_trace(path, TraceHeader("m", "d", (1,)), [record])
    assert path.read_text().splitlines() == [
        '{"schema": "exit-trace/1", "name": "m", "decoding": "d", '
        '"exit_layers": [1]}',
        '{"id": "u", "set": "s", "ref": "a", "exits": '
        '[{"layer": 1, "hyp": "a"}]}',
    ]


def test_fields_have_their_order_and_numbers_their_kind(tmp_path):
    path = tmp_path / "t.jsonl"
    values = {"z": np.float64(0.5), "a": np.int64(2)}
    exit_ = ExitRecord(2, "naïve", None, values, np.int64(9), "n", 4)
    record = UtteranceRecord("u", "s", "a", (exit_,), 3, "ann")
    header = TraceHeader(
        "m", "d", (2,), (9,), (7,), 10, 29, 25, "character", 8, {"b": "why"}
    )
    write_trace(path, header, [record])
    assert path.read_text("utf-8").splitlines() == [
        '{"schema": "exit-trace/1", "name": "m", "decoding": "d", '
        '"exit_layers": [2], "macs": [9], "macs_reference_s": 10.0, '
        '"parameters": [7], "vocab_size": 29, "frames_per_s": 25.0, '
        '"error_unit": "character", "width": 8, "left_out": {"b": "why"}}',
        '{"id": "u", "set": "s", "ref": "a", "duration_s": 3.0, '
        '"speaker": "ann", "exits": [{"layer": 2, "hyp": "naïve", '
        '"evidence": {"a": 2.0, "z": 0.5}, "macs": 9, "greedy": "n", '
        '"decoding_macs": 4}]}',
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
    "half a character": (second(hyp="\ud800"), "line 4"),
    "half a greedy one": (second(greedy="\ud800"), "line 4"),
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
    assert where.startswith(f"{path}, line 4") and where.endswith(field)
    assert f"(utterance {record.id!r}) The trace was not written" in problem
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_records_that_cannot_be():
    for changes in (
        {"hyp": None},
        {"macs": 4, "decoding_macs": 5},
        {"decoding_macs": 5},
    ):
        with pytest.raises(ValueError, match="hyp nor errors|more than macs"):
            second(**changes)
    for changes in ({"exit_layers": (4, 2)}, {"macs": (1,)}):
        with pytest.raises(ValueError, match=next(iter(changes))):
            replace(HEADER, **changes)


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
        ("t.jsonl", b"\xff\xfe\xff", "line 1, field JSON"),
    ],
)
def test_unreadable_content(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
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
    "JSON": [
        "{",
        "[" * 100_000,
        "[]",
        json.dumps(with_exit(evidence={"entropy": NAN})),
        json.dumps(row(duration_s=NAN)),
        json.dumps(row(duration_s=-np.inf)),
        with_exit(hyp="\ud800"),
        with_exit(greedy="\ud800"),
    ],
    "exits": [
        row(exits=row()["exits"][:1]),
        row(exits=row()["exits"][::-1]),
        row(exits=[*row()["exits"], {"layer": 6, "hyp": ""}]),
        with_exit(layer=3),
        without(row(), "exits"),
    ],
    "exits[0]": [row(exits=[2, 4])],
    "exits[0].layer": [with_exit(layer=2.0), with_exit(layer=True)],
    "exits[0].hyp": [
        with_exit(hyp=1),
        with_exit(hyp=None),
        with_exit(hyp=None, greedy="a"),
    ],
    "exits[0].wer": [with_exit(wer=1)],
    "exits[0].greedy": [with_exit(greedy=1), with_exit(greedy=["a"])],
    "exits[0].errors": [with_exit(errors=-1), with_exit(errors=2**63)],
    "exits[layer 2].errors": [with_exit(errors=2)],
    "exits[0].evidence": [with_exit(evidence=[0.5])],
    "exits[0].evidence.entropy": [
        with_exit(evidence={"entropy": "0.5"}),
        with_exit(evidence={"entropy": True}),
        with_exit(evidence={"entropy": 10**400}),
        json.dumps(with_exit(evidence={"entropy": 7})).replace("7", "1e999"),
    ],
    "exits[0].decoding_macs": [
        with_exit(macs=9, decoding_macs=-1),
        with_exit(macs=9, decoding_macs=1.5),
        with_exit(macs=9, decoding_macs=10),
        with_exit(decoding_macs=10),
    ],
    "id": [without(row(), "id")],
    "ref": [row(ref=3)],
    "talker": [row(talker="x")],
    "speaker": [row(speaker=""), row(speaker=19)],
    "duration_s": [row(duration_s="long"), row(duration_s=-1)],
}


@pytest.mark.parametrize("field", MALFORMED)
def test_malformed_utterance(tmp_path, field):
    path = tmp_path / "t.jsonl"
    for content in MALFORMED[field]:
        if not isinstance(content, str):
            content = json.dumps(content)
        path.write_text(f"{HEAD}\n{content}\n")
        with pytest.raises(InputError) as error:
            read_trace(path)
        assert f"{path}, line 2, field {field}:" in str(error.value)
    path.write_text(f"{HEAD}\n{json.dumps(row())}\n{json.dumps(row())}\n")
    with pytest.raises(InputError, match="line 3, field id: 'u' .*line 2"):
        read_trace(path)


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
        (HEAD.replace("}", ',"parameters":[1,-2]}'), "parameters[1]"),
        (HEAD.replace("}", ',"vocab_size":2.5}'), "vocab_size"),
        (HEAD.replace("}", ',"frames_per_s":-1}'), "frames_per_s"),
        (HEAD.replace("}", ',"left_out":{"a":1}}'), "left_out.a"),
        (HEAD.replace("}", ',"error_unit":"phone"}'), "error_unit"),
    ],
)
def test_malformed_header(tmp_path, header, field):
    path = tmp_path / "t.jsonl"
    path.write_text(f"{header}\n{json.dumps(row())}\n")
    with pytest.raises(InputError) as error:
        read_trace(path)
    assert f"{path}, line 1, field {field}:" in str(error.value)


LATE = [{}, {"change": 0.5}]
EVERYWHERE = [{"entropy": 1.0}, {"entropy": 0.5}]
NONE = [{}, {}]


def lines_with(*evidence):
    """Utterances u0, u1, ... with such evidence at their two exits."""
    return "\n".join(
        json.dumps(
            row(
                id=f"u{i}",
                exits=[
                    {"layer": layer, "hyp": "a", "evidence": known}
                    for layer, known in zip((2, 4), exits)
                ],
            )
        )
        for i, exits in enumerate(evidence)
    )


@pytest.mark.parametrize(
    ("evidence", "line", "field"),
    [
        ((EVERYWHERE, EVERYWHERE, NONE), 4, "exits[layer 2].evidence.entropy"),
        ((EVERYWHERE, LATE, NONE), 3, "exits[layer 2].evidence.entropy"),
        ((NONE, NONE, EVERYWHERE), 2, "exits[layer 2].evidence.entropy"),
        ((NONE, LATE, LATE), 2, "exits[layer 4].evidence.change"),
        ((LATE, LATE, NONE), 4, "exits[layer 4].evidence.change"),
        (
            (EVERYWHERE, [EVERYWHERE[0], {}]),
            3,
            "exits[layer 4].evidence.entropy",
        ),
    ],
)
def test_evidence_of_some_utterances_only(tmp_path, evidence, line, field):
    path = tmp_path / "t.jsonl"
    path.write_text(f"{HEAD}\n{lines_with(*evidence)}\n")
    with pytest.raises(InputError) as error:
        read_trace(path)
    assert f"{path}, line {line}, field {field}: missing" in str(error.value)
    # the same hole in all utterances: not usable, and no mistake
    path.write_text(f"{HEAD}\n{lines_with(*[[EVERYWHERE[0], {}]] * 2)}\n")
    assert read_trace(path).evidence_names == ()


ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(st.characters(), max_size=3),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


PLACES = [
    [],
    ["id"],
    ["set"],
    ["ref"],
    ["duration_s"],
    ["exits"],
    ["exits", 0],
    *(["exits", 1, name] for name in ("layer", "hyp", "errors", "macs")),
    ["exits", 1, "greedy"],
    ["exits", 1, "decoding_macs"],
    ["exits", 0, "evidence"],
    ["exits", 0, "evidence", "entropy"],
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PLACES), ANY_JSON)
def test_whatever_is_in_a_field_it_is_read_or_refused(
    tmp_path_factory, place, value
):
    line = json.loads(json.dumps(row()))
    if place:
        target = line
        for step in place[:-1]:
            target = target[step]
        target[place[-1]] = value
    else:
        line = value
    folder = tmp_path_factory.getbasetemp()
    path = folder / "any.jsonl"
    path.write_text(f"{HEAD}\n{json.dumps(line)}\n")
    try:
        trace = read_trace(path)
    except InputError as error:
        assert f"{path}, line 2, field " in str(error)
        return
    # what is accepted has columns, and is read again as it is written
    assert trace.errors_NE.shape == (1, 2)
    assert trace.evidence.shape == (1, 2)
    copy = folder / "copy.jsonl"
    write_trace(copy, trace.header, trace.records)
    assert read_trace(copy).records == trace.records
