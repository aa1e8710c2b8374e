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
    "not JSON": ("{", "JSON"),
    "too deep": ("[" * 100_000, "JSON"),
    "not an object": ("[]", "JSON"),
    "missing exit": (row(exits=row()["exits"][:1]), "exits"),
    "other layers": (with_exit(layer=3), "exits"),
    "layer is no integer": (with_exit(layer=2.0), "exits"),
    "an exit more": (row(exits=[*row()["exits"], {"layer": 6}]), "exits"),
    "other order": (row(exits=row()["exits"][::-1]), "exits"),
    "exit is no object": (row(exits=[2, 4]), "exits"),
    "no exits": (without(row(), "exits"), "exits"),
    "no id": (without(row(), "id"), "id"),
    "ref is a number": (row(ref=3), "ref"),
    "unknown field": (row(talker="x"), "talker"),
    "empty speaker": (row(speaker=""), "speaker"),
    "speaker that is no text": (row(speaker=19), "speaker"),
    "unknown field of an exit": (with_exit(wer=1), "exits[layer 2].wer"),
    "NaN": (json.dumps(with_exit(evidence={"entropy": float("nan")})), "JSON"),
    "too large": (
        json.dumps(with_exit(evidence={"entropy": 0})).replace(
            ": 0}", ": 1e999}"
        ),
        "evidence.entropy",
    ),
    "evidence is a text": (
        with_exit(evidence={"entropy": "0.5"}),
        "evidence.entropy",
    ),
    "evidence is a truth value": (
        with_exit(evidence={"entropy": True}),
        "evidence.entropy",
    ),
    "neither hyp nor errors": (with_exit(hyp=None), "exits[layer 2].hyp"),
    "hyp is a number": (with_exit(hyp=1), "exits[layer 2].hyp"),
    "half a character": (with_exit(hyp="\ud800"), "exits[layer 2].hyp"),
    "negative errors": (with_exit(errors=-1), "errors"),
    "hyp and errors disagree": (with_exit(errors=2), "errors"),
    "errors beyond counting": (with_exit(errors=2**63), "errors"),
    "evidence beyond floats": (
        with_exit(evidence={"entropy": 10**400}),
        "evidence.entropy",
    ),
    "evidence is a list": (with_exit(evidence=[0.5]), "evidence"),
    "duration": (row(duration_s="long"), "duration_s"),
    "negative duration": (row(duration_s=-1), "duration_s"),
    "greedy is a number": (with_exit(greedy=1), "exits[layer 2].greedy"),
    "greedy is a list": (with_exit(greedy=["a"]), "exits[layer 2].greedy"),
    "half a greedy character": (
        with_exit(greedy="\ud800"),
        "exits[layer 2].greedy",
    ),
    "negative cost of decoding": (
        with_exit(macs=9, decoding_macs=-1),
        "exits[layer 2].decoding_macs",
    ),
    "cost of decoding is no count": (
        with_exit(macs=9, decoding_macs=1.5),
        "exits[layer 2].decoding_macs",
    ),
    "decoding costs more than all": (
        with_exit(macs=9, decoding_macs=10),
        "exits[layer 2].decoding_macs",
    ),
    "decoding costs without a cost": (
        with_exit(decoding_macs=10),
        "exits[layer 2].decoding_macs",
    ),
    "greedy alone is nothing": (
        with_exit(hyp=None, greedy="a"),
        "exits[layer 2].hyp",
    ),
    "two with one id": (json.dumps(row()) + "\n" + json.dumps(row()), "id"),
}


for name in ("NaN", "Infinity", "-Infinity"):
    MALFORMED[f"duration {name}"] = (
        json.dumps(row(duration_s=0)).replace('s": 0', f's": {name}'),
        "JSON",
    )


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_utterance(tmp_path, case):
    content, field = MALFORMED[case]
    if not isinstance(content, str):
        content = json.dumps(content)
    path = tmp_path / "t.jsonl"
    path.write_text(f"{HEAD}\n{content}\n")
    with pytest.raises(InputError) as error:
        read_trace(path)
    line = 3 if case == "two with one id" else 2
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


@pytest.mark.parametrize(
    ("evidence", "names"),
    [
        ((EVERYWHERE, EVERYWHERE), ("entropy",)),
        ((LATE, LATE), ("change",)),
        ((NONE, NONE), ()),
        # the same hole in all utterances: not usable, and not a mistake
        ((EVERYWHERE[::-1][:1] + NONE[:1],) * 2, ()),
    ],
)
def test_evidence_of_all_utterances(tmp_path, evidence, names):
    path = tmp_path / "t.jsonl"
    path.write_text(f"{HEAD}\n{lines_with(*evidence)}\n")
    assert read_trace(path).evidence_names == names


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
