"""Records: what fits, and what the message says of what does not.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from typing import Literal

import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.schema import (
    Count,
    Finite,
    Positive,
    Record,
    Share,
    convert,
    plain,
    read_record,
)


class Part(Record):
    layer: Positive
    scores: tuple[Finite, ...] = ()

    def __post_init__(self):
        if list(self.scores) != sorted(self.scores):
            raise ValueError("scores must rise")


class Whole(Record):
    schema: Literal["whole/1"]
    parts: tuple[Part, ...]
    level: float | None = None
    evidence: dict[str, Finite] = {}
    kind: Literal["naive", "ltt"] | None = None
    share: Share = 0.5
    part: Part | None = None
    count: Count = 0


GOOD = {"schema": "whole/1", "parts": [{"layer": 2, "scores": [1, 2.5]}]}


def test_what_fits_is_read_and_written_back():
    record = convert(GOOD, Whole, "x.json", "mend it")
    assert record.parts == (Part(2, (1.0, 2.5)),)
    assert convert(plain(record), Whole, "x.json", "mend it") == record


@pytest.mark.parametrize(
    "change, words",
    [
        ({"schema": "whole/2"}, "key schema: 'whole/2' .*valid: whole/1"),
        ({"parts": None}, "key parts: None does not fit"),
        ({"parts": [{"layer": 0}]}, r"key parts\[0\].layer: 0 does not"),
        ({"parts": [{"layer": True}]}, r"key parts\[0\].layer: True does"),
        ({"parts": [{"layer": 2**63}]}, r"key parts\[0\].layer: 92233"),
        ({"parts": [{}]}, r"key parts\[0\].layer: missing"),
        (
            {"parts": [{"layer": 1, "x": 2}]},
            r"key parts\[0\].x: not known; valid keys: layer, scores",
        ),
        (
            {"parts": [{"layer": 1, "scores": [2, 1]}]},
            r"key parts\[0\]: scores must rise",
        ),
        (
            {"part": {"layer": 1, "y": 2}},
            "key part.y: not known; valid keys: layer, scores",
        ),
        ({"other": 1}, "key other: not known; valid keys: schema, parts"),
        ({"level": "high"}, "key level: 'high' does not fit"),
        ({"evidence": {"a": 1, "b": "x"}}, "key evidence.b: 'x' does not"),
        ({"evidence": {"a": math.nan}}, "key evidence.a: nan does not"),
        ({"evidence": {"a": math.inf}}, "key evidence.a: inf does not"),
        ({"evidence": {1: 1.0}}, "does not fit"),
        ({"kind": "crc"}, "key kind: 'crc' does not fit .valid: naive, ltt"),
        ({"share": 1}, "key share: 1"),
        ({"count": -1}, "key count: -1 does not fit"),
    ],
)
def test_what_does_not_fit_is_named_with_file_key_and_way_out(change, words):
    with pytest.raises(InputError, match=f"^x.json, .*{words}.*; mend it"):
        convert({**GOOD, **change}, Whole, "x.json", "mend it")


def test_content_of_another_kind():
    with pytest.raises(InputError, match=r"^x.json, content: \[1\] does not"):
        convert([1], Whole, "x.json", "mend it")


def test_a_file_is_read_by_its_name(tmp_path):
    path = tmp_path / "part.yaml"
    path.write_text("layer: 3\nscores: [1, 2]\n")
    assert read_record(path, Part, "mend it") == Part(3, (1.0, 2.0))
    path = tmp_path / "part.json"
    path.write_text('{"layer": 3, "scores": [3, 2]}')
    with pytest.raises(InputError, match="part.json, content: scores must"):
        read_record(path, Part, "mend it")
