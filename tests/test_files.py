"""Files and folders: whole or not at all, and read within bounds.

Authors
 * The speechbrain-ee contributors 2026
"""

import gzip
import json
import os
import threading

import pytest
import yaml

from speechbrain_ee.errors import InputError
from speechbrain_ee.files import (
    LOADER,
    compose_yaml,
    read_json,
    read_yaml,
    whole_file,
    whole_folder,
    write_json,
)

CONTENT = {"schema": "thing/1", "names": ["naïve", "b"], "value": 0.1}


def read(path):
    return read_json(path, "make it again")


def test_round_trip_and_equal_bytes(tmp_path):
    first, second = tmp_path / "a.json.gz", tmp_path / "deep" / "b.bin"
    write_json(first, CONTENT)
    write_json(second, CONTENT)
    assert first.read_bytes() == second.read_bytes()
    assert read(second) == CONTENT
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


def test_text_and_names_of_any_length(tmp_path):
    path = tmp_path / "deep" / ("n" * 250)
    with whole_file(path, text=True) as stream:
        stream.write("naïve\r\n")
    assert path.read_bytes() == "naïve\r\n".encode()
    with pytest.raises(KeyError), whole_file(path) as stream:
        stream.write(b"half")
        raise KeyError
    assert path.read_bytes() == "naïve\r\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    path, read = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    reader.start()
    with whole_file(path) as stream:
        stream.write(b"through")
    reader.join(timeout=60)
    assert read == [b"through"] and path.is_fifo()


def test_a_file_reaches_the_disk_before_its_name_does(tmp_path, monkeypatch):
    steps = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os,
            name,
            lambda *given, name=name, real=real: (
                steps.append(name),
                real(*given),
            ),
        )
    with whole_file(tmp_path / "a") as stream:
        stream.write(b"x")
    assert steps[:2] == ["fsync", "replace"]


def test_folders_of_odd_places(tmp_path, monkeypatch):
    def fill(path):
        with whole_folder(path, refuse) as new:
            (new / "b").write_text("x")

    def refuse(path):
        raise InputError(f"{path}: mine")

    monkeypatch.chdir(tmp_path)
    fill("a, b=c ")
    assert (tmp_path / "a, b=c " / "b").exists()
    with pytest.raises(InputError, match="a, b=c : mine"):
        fill("a, b=c ")
    (tmp_path / "empty").mkdir()
    fill("empty")
    (tmp_path / "link").symlink_to("empty")
    for path in ("link", "a, b=c /b"):
        with pytest.raises(InputError, match="something else"):
            fill(path)
    with pytest.raises(InputError, match="cannot be written"):
        fill(tmp_path / "empty" / "b" / "c")
    assert sorted(os.listdir()) == ["a, b=c ", "empty", "link"]


YAMLS = {
    "an alias": ("a: &x [1]\nb: *x\n", "alias"),
    "a tag": ("a: !!python/object/apply:os.system [ls]\n", "plain values"),
    "depth": (f"a: {'[' * 100}", "deep"),
    "length": ("\n".join(f"a{n}: 1" for n in range(70_000)), "too long"),
    "size": ("#" * 2_000_000, "more than 1 MB"),
    "long value": ("a: " + "1:" * 6000 + "1", "characters"),
    "large number": (f"a: 0x{'f' * 5000}", r"2\*\*63"),
    "wrong date": ("a: 2001-99-99", "month"),
}


@pytest.mark.parametrize("kind", YAMLS)
def test_yaml_of_plain_values(tmp_path, kind):
    path = tmp_path / "a.yaml"
    text, message = YAMLS[kind]
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_yaml(path, "make it again")
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_yaml_is_read_in_c_and_as_nodes(tmp_path):
    assert LOADER.__name__ == "CSafeLoader" or not yaml.__with_libyaml__
    path = tmp_path / "a.yaml"
    path.write_text("a: &x !new:os.system\n  b: [1, .inf]\nc: *x\n")
    (_, first), (_, second) = compose_yaml(path, "").value
    assert first is second and first.tag == "!new:os.system"
    path.write_text("a: [1, .inf, 2.5, text, null]\n")
    assert read_yaml(path, "") == {"a": [1, float("inf"), 2.5, "text", None]}


JSONS = {
    "depth": ('{"a":' * 70 + "1" + "}" * 70, "deep"),
    "recursion": ("[" * 10**6, "not a whole file"),
    "large number": ('{"a": 1%s}' % ("0" * 400), r"2\*\*63"),
    "large float": ('{"a": 1e999}', "finite"),
    "parts": ("[" + "[]," * 10**6 + "[]]", "parts"),
}


@pytest.mark.parametrize("kind", JSONS)
def test_json_that_would_be_trouble(tmp_path, kind):
    path = tmp_path / "a.json"
    text, message = JSONS[kind]
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_json(path, "make it again")
    assert len(str(caught.value)) < 1000
