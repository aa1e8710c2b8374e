"""Lines of a trace: what is malformed is refused, by line and field.

Authors
 * The speechbrain-ee contributors 2026
"""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits import read_trace, write_trace

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
    "too deep": ("[" * 100_000, 2, "JSON"),
    "not an object": ("[]", 2, "JSON"),
    "missing exit": (row(exits=row()["exits"][:1]), 2, "exits"),
    "other layers": (with_exit(layer=3), 2, "exits"),
    "layer is no integer": (with_exit(layer=2.0), 2, "exits"),
    "an exit more": (row(exits=[*row()["exits"], {"layer": 6}]), 2, "exits"),
    "other order": (row(exits=row()["exits"][::-1]), 2, "exits"),
    "exit is no object": (row(exits=[2, 4]), 2, "exits"),
    "no exits": (without(row(), "exits"), 2, "exits"),
    "no id": (without(row(), "id"), 2, "id"),
    "ref is a number": (row(ref=3), 2, "ref"),
    "unknown field": (row(talker="x"), 2, "talker"),
    "empty speaker": (row(speaker=""), 2, "speaker"),
    "speaker that is no text": (row(speaker=19), 2, "speaker"),
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
    "hyp is a number": (with_exit(hyp=1), 2, "exits[layer 2].hyp"),
    "half a character": (with_exit(hyp="\ud800"), 2, "exits[layer 2].hyp"),
    "negative errors": (with_exit(errors=-1), 2, "errors"),
    "hyp and errors disagree": (with_exit(errors=2), 2, "errors"),
    "errors beyond counting": (with_exit(errors=2**63), 2, "errors"),
    "evidence beyond floats": (
        with_exit(evidence={"entropy": 10**400}),
        2,
        "evidence.entropy",
    ),
    "evidence is a list": (with_exit(evidence=[0.5]), 2, "evidence"),
    "duration": (row(duration_s="long"), 2, "duration_s"),
    "negative duration": (row(duration_s=-1), 2, "duration_s"),
    "greedy is a number": (with_exit(greedy=1), 2, "exits[layer 2].greedy"),
    "greedy is a list": (with_exit(greedy=["a"]), 2, "exits[layer 2].greedy"),
    "half a greedy character": (
        with_exit(greedy="\ud800"),
        2,
        "exits[layer 2].greedy",
    ),
    "negative cost of decoding": (
        with_exit(macs=9, decoding_macs=-1),
        2,
        "exits[layer 2].decoding_macs",
    ),
    "cost of decoding is no count": (
        with_exit(macs=9, decoding_macs=1.5),
        2,
        "exits[layer 2].decoding_macs",
    ),
    "decoding costs more than all": (
        with_exit(macs=9, decoding_macs=10),
        2,
        "exits[layer 2].decoding_macs",
    ),
    "decoding costs without a cost": (
        with_exit(decoding_macs=10),
        2,
        "exits[layer 2].decoding_macs",
    ),
    "greedy alone is nothing": (
        with_exit(hyp=None, greedy="a"),
        2,
        "exits[layer 2].hyp",
    ),
    "two with one id": (json.dumps(row()) + "\n" + json.dumps(row()), 3, "id"),
}


for name in ("NaN", "Infinity", "-Infinity"):
    MALFORMED[f"duration {name}"] = (
        json.dumps(row(duration_s=0)).replace('s": 0', f's": {name}'),
        2,
        "JSON",
    )


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
