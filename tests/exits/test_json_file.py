"""Compressed JSON: equal bytes, and an error that names what is wrong.

Authors
 * The speechbrain-ee contributors 2026
"""

import gzip
import json

import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.json_file import read_json, write_json

CONTENT = {"schema": "thing/1", "names": ["naïve", "b"], "value": 0.1}


def read(path):
    return read_json(path, "thing/1", ("names", "value"), "make it again")


def test_round_trip_and_equal_bytes(tmp_path):
    first, second = tmp_path / "a.json.gz", tmp_path / "deep" / "b.bin"
    write_json(first, CONTENT)
    write_json(second, CONTENT)
    assert first.read_bytes() == second.read_bytes()
    assert read(second) == {"names": ["naïve", "b"], "value": 0.1}
    assert not list(tmp_path.glob(".*"))


def test_what_is_no_number_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json.gz"
    write_json(path, CONTENT)
    with pytest.raises(ValueError):
        write_json(path, CONTENT | {"value": float("nan")})
    assert read(path)["value"] == 0.1


def packed(content):
    return gzip.compress(json.dumps(content).encode())


WHOLE = packed(CONTENT)
BROKEN = {
    "cut": (WHOLE[:-12], "not a whole file"),
    "damaged": (WHOLE[:15] + b"\xff\xff" + WHOLE[17:], "not a whole file"),
    "not packed": (json.dumps(CONTENT).encode(), "not a whole file"),
    "empty": (b"", "not a whole file"),
    "no JSON": (gzip.compress(b"{'a': 1}"), "not a whole file"),
    "no text": (gzip.compress(b"\xff\xfe{"), "not a whole file"),
    "a list": (packed([1]), "holds a list"),
    "NaN": (packed(CONTENT | {"value": float("nan")}), "NaN"),
    "infinite": (packed(CONTENT | {"value": float("inf")}), "Infinity"),
    "schema": (packed(CONTENT | {"schema": "thing/2"}), "thing/2"),
    "no schema": (packed({"names": [], "value": 1}), "schema is None"),
    "missing": (packed({"schema": "thing/1", "names": []}), "value is missing"),
    "unknown": (packed(CONTENT | {"vale": 1}), "vale is not known"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_malformed(tmp_path, kind):
    path = tmp_path / "broken.json.gz"
    content, message = BROKEN[kind]
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "make it again" in str(caught.value)


def test_places_that_are_no_files(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "nowhere.json.gz")
    with pytest.raises(InputError, match="not a whole file"):
        read(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        write_json(tmp_path / "file" / "a.json.gz", CONTENT)
