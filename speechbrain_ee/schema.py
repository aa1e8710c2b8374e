"""One way to validate every file format: typed records.

A format is a :class:`Record`, a frozen struct of msgspec whose annotations say
what each key may hold. :func:`convert` turns plain values into it or names the
file, the key, the value and the way out.

>>> class Point(Record):
...     layers: Count
...     label: str | None = None
>>> convert({"layers": 3}, Point, "point.json", "write it again")
Point(layers=3, label=None)
>>> convert({"layers": -3}, Point, "point.json", "write it again")
Traceback (most recent call last):
...
speechbrain_ee.errors.InputError: point.json, key layers: -3 does not fit \
(Expected `int` >= 0); write it again.

Authors
 * The speechbrain-ee contributors 2026
"""

import re
import sys
from pathlib import Path
from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

import msgspec

from speechbrain_ee.errors import InputError, quoted
from speechbrain_ee.files import LARGEST_INT, read_json, read_yaml

T = TypeVar("T")

Count = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_INT)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=LARGEST_INT)]
Finite = Annotated[
    float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)
]
Share = Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)]  # both ends excluded

_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_PLACE = re.compile(r"^(.*?)(?: - at `(?:key` in `)?\$(.*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"^Object contains unknown field `(.*)`$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(.*)`$", re.DOTALL)


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of what a file holds; a ``ValueError`` of ``__post_init__`` is
    reported with the file and the key of the record.
    """


def convert(content: Any, kind: type[T], path: str | Path, remedy: str) -> T:
    """Plain values as a record.

    Arguments
    ---------
    content : Any
        What a JSON or YAML file holds.
    kind : type
        A :class:`Record`, or another type that msgspec knows.
    path : str or Path
        The file, for messages.
    remedy : str
        The way out, for messages.

    Returns
    -------
    Any
        An instance of the type.

    Raises
    ------
    InputError
        If something does not fit.
    """
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        key, problem = explain(error, content, kind)
        where = f"key {key}" if key else "content"
        raise InputError(f"{path}, {where}: {problem}; {remedy}.") from None


def read_record(path: str | Path, kind: type[T], remedy: str) -> T:
    """The record that a file holds: YAML if its name says so, else JSON,
    which gzip may have compressed.
    """
    is_yaml = Path(path).suffix in (".yaml", ".yml")
    content = (read_yaml if is_yaml else read_json)(path, remedy)
    return convert(content, kind, path, remedy)


def plain(record: Any) -> Any:
    """A record as lists, mappings and plain values, to be written."""
    return msgspec.to_builtins(record)


def explain(
    error: msgspec.ValidationError, content: Any, kind: Any
) -> tuple[str, str]:
    """Which key of the content does not fit the type, and why."""
    match = _PLACE.match(str(error))
    assert match is not None
    problem, place = match[1], match[2] or ""
    key = ""
    for name, index in _STEP.findall(place):
        kind = _inside(kind, name)
        if index == "...":
            # msgspec does not say which key of a mapping it is.
            name = next(
                (each for each in content if not _fits(content[each], kind)),
                "...",
            )
        key += f"[{index}]" if index.isdigit() else f".{str(name)[:100]}"
        try:
            content = content[int(index) if index.isdigit() else name]
        except (LookupError, TypeError):
            content = None
    key = key.removeprefix(".")
    prefix = f"{key}." if key else ""
    if match := _UNKNOWN.match(problem):
        valid = ", ".join(_record(kind).__struct_encode_fields__)
        return prefix + match[1][:100], f"not known; valid keys: {valid}"
    if match := _MISSING.match(problem):
        return prefix + match[1], "missing"
    if error.__cause__ is not None:
        return key, problem.rstrip(".")
    if problem.startswith("Invalid enum value"):
        problem = f"valid: {', '.join(map(str, _choices(kind)))}"
    return key, f"{quoted(content)} does not fit ({problem})"


def _fits(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _inside(kind: Any, name: str) -> Any:
    """The type of a record's field, or of the items of a container."""
    if name and (record := _record(kind)):
        fields = msgspec.structs.fields(record)
        return next((f.type for f in fields if f.encode_name == name), Any)
    for each in _members(kind):
        if get_origin(each) is not None:
            return get_args(each)[1 if get_origin(each) is dict else 0]
    return Any


def _members(kind: Any) -> list[Any]:
    """The types of a union, without what annotates them."""
    if hasattr(kind, "__metadata__"):
        kind = get_args(kind)[0]
    union = get_origin(kind) in (Union, UnionType)
    return list(get_args(kind)) if union else [kind]


def _record(kind: Any) -> Any:
    return next(
        (e for e in _members(kind) if hasattr(e, "__struct_fields__")), None
    )


def _choices(kind: Any) -> list[Any]:
    literals = [e for e in _members(kind) if get_origin(e) is Literal]
    return [value for each in literals for value in get_args(each)]
