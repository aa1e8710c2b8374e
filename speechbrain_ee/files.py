"""Files and folders: written whole or not at all, read within bounds.

Writing: what is there keeps its name until its successor is complete and has
reached the disk. Reading: a file that may come from anybody must not hang the
reader, fill its memory, or end in a traceback.

Authors
 * The speechbrain-ee contributors 2026
"""

import ctypes
import gzip
import io
import json
import math
import os
import re
import secrets
import shutil
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NoReturn

import yaml

from speechbrain_ee.errors import InputError, one_line

MB = 10**6
# Of one file; what models of today's size need, several times over.
MOST_JSON_BYTES = 32 * MB
MOST_YAML_BYTES = MB
# An empty list takes 3 characters in a file, and 60 bytes in memory.
MOST_PARTS = 10**6
MOST_DEPTH = 64
MOST_SCALAR = 10_000  # characters of a value; PyYAML's numbers are quadratic
MOST_EVENTS = 10**5  # of YAML, which is read at 5 microseconds per event
LARGEST_INT = 2**63 - 1  # what tensors and columns can hold
# As the user writes them, these are open already and end.
STREAMS = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
GZIP = b"\x1f\x8b"
# Twenty times as fast as the one in Python; PyYAML may come without it.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
ROOM = "make room, or choose a place that you may write to"
_AT_CWD, _EXCHANGE = -100, 2  # of Linux' renameat2


# ---- Writing ---------------------------------------------------------------


@contextmanager
def whole_file(
    path: str | Path, way_out: str = ROOM, text: bool = False
) -> Iterator[IO[Any]]:
    """Write a file whole or not at all.

    Example
    -------
    >>> target = Path(getfixture("tmp_path")) / "new" / "a.txt"
    >>> with whole_file(target, text=True) as stream:
    ...     _ = stream.write("whole")
    >>> target.read_text("utf-8"), [path.name for path in target.parent.iterdir()]
    ('whole', ['a.txt'])
    """
    path = Path(path)
    options = {"encoding": "utf-8", "newline": ""} if text else {}
    kind = "" if text else "b"
    # Any length of the name leaves room for what is put around it.
    temporary = path.parent / f".{path.name[:60]}.{_token()}.part"
    try:
        if _is_stream(path):
            with open(path, f"w{kind}", **options) as stream:
                yield stream
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, f"x{kind}", **options) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or one_line(error)}); "
            f"{way_out}."
        ) from error
    finally:
        # of the parent only what is there: it may be a file or missing
        with suppress(OSError):
            temporary.unlink()


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write an object compressed by gzip; equal content, equal bytes."""
    text = json.dumps(content, ensure_ascii=False, indent=0, allow_nan=False)
    with whole_file(path) as raw:
        # No name and no time in gzip's header: bytes follow the content.
        with gzip.GzipFile("", "wb", 9, fileobj=raw, mtime=0) as stream:
            stream.write((text + "\n").encode())


@contextmanager
def whole_folder(
    path: str | Path, check: Callable[[Path], None], way_out: str = ROOM
) -> Iterator[Path]:
    """Write or replace a folder whole or not at all.

    Whoever looks finds the old folder or the new one, also after a kill:
    Linux exchanges the two in one step. Where a file system cannot, the old
    one is moved away first, and a kill in between leaves it to
    :func:`restore`, which the next writer and readers call.

    Example
    -------
    >>> target = Path(getfixture("tmp_path")) / "a"
    >>> with whole_folder(target, check=print) as folder:
    ...     _ = (folder / "b.txt").write_text("whole")
    >>> [path.name for path in target.parent.rglob("*")]
    ['a', 'b.txt']
    """
    path = Path(os.path.abspath(path))
    restore(path)
    _check_place(path, check)
    new = path.parent / f".{path.name}.{_token()}.new"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path)
        new.mkdir()
        with _in_use(new):
            yield new
            for folder, _, names in os.walk(new, topdown=False):
                for name in names:
                    _sync(os.path.join(folder, name))
                _sync_folder(folder)
            _check_place(path, check)  # what came meanwhile, too
            _take_place(new, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or one_line(error)}); "
            f"{way_out}."
        ) from error
    except InputError as error:
        raise InputError(str(error).replace(str(new), str(path))) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def restore(path: str | Path) -> None:
    """Give a folder back that a killed :func:`whole_folder` has moved away."""
    path = Path(os.path.abspath(path))
    if os.path.lexists(path):
        return
    with suppress(OSError):
        for old in _beside(path, "old"):
            if _is_abandoned(old):
                os.rename(old, path)
                return


def check_ours(path: Path, is_ours: bool, *patterns: str) -> None:
    """Refuse to delete a folder that holds what this project did not write."""
    if not is_ours:
        raise InputError(
            f"{path}: something else than an earlier export is there, and "
            "would be deleted; choose another place, or remove it."
        )
    ours = re.compile("|".join(f"(?:{each})" for each in patterns))
    for folder, folders, names in os.walk(path):
        links = [n for n in folders if os.path.islink(os.path.join(folder, n))]
        for name in sorted([*names, *links]):
            found = Path(folder, name).relative_to(path).as_posix()
            if not ours.fullmatch(found):
                raise InputError(
                    f"{path}: holds {found}, which was not written by this "
                    "command and would be deleted; move it away, or choose "
                    "an empty or another folder."
                )


def _check_place(path: Path, check: Callable[[Path], None]) -> None:
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise InputError(
            f"{path}: something else than a folder is there; choose another "
            "place, or remove it."
        )
    try:
        if path.is_dir() and any(path.iterdir()):
            check(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); {ROOM}."
        ) from error


def _take_place(new: Path, path: Path) -> None:
    """Put a folder in the place of another, which may be there."""
    if not path.exists():
        os.rename(new, path)
        return
    if _exchange(new, path):
        return
    old = new.with_suffix(".old")
    with _in_use(path):  # it is not given back while it is moved
        os.rename(path, old)
        try:
            os.rename(new, path)
        except BaseException:
            os.rename(old, path)
            raise
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where that is not possible."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    names = os.fsencode(one), os.fsencode(other)
    return call(_AT_CWD, names[0], _AT_CWD, names[1], _EXCHANGE) == 0


def remove_abandoned(path: str | Path) -> None:
    """Delete what killed writers of a folder have left beside it."""
    path = Path(os.path.abspath(path))
    for left in [*_beside(path, "new"), *_beside(path, "old")]:
        if _is_abandoned(left):
            shutil.rmtree(left, ignore_errors=True)


def _beside(path: Path, suffix: str) -> list[Path]:
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}\.{suffix}")
    try:
        names = os.listdir(path.parent)
    except OSError:
        return []
    return [path.parent / n for n in names if pattern.fullmatch(n)]


def _is_abandoned(folder: Path) -> bool:
    try:
        with _in_use(folder):
            return True
    except OSError:
        return False


@contextmanager
def _in_use(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, which a kill gives back; OSError if taken."""
    import fcntl  # what only reads runs where there is none

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _is_stream(path: Path) -> bool:
    """Whether what is there is written to, not replaced: a pipe, a device."""
    try:
        mode = os.stat(path).st_mode
        if path.is_symlink() and os.readlink(path).startswith("/proc/"):
            return True  # /dev/stdout, whatever it leads to
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _token() -> str:
    return secrets.token_hex(8)


def _sync(path: str | Path) -> None:
    """Have the disk, not only its cache, hold a file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: str | Path) -> None:
    with suppress(OSError):  # not every file system can
        _sync(path)


# ---- Reading ---------------------------------------------------------------


def open_plain(path: str | Path) -> io.BufferedReader:
    """Open a regular file for reading; a pipe would hang, a device not end."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
    if str(path).startswith(STREAMS):
        flags = os.O_RDONLY
    descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode) and not str(path).startswith(STREAMS):
            raise OSError("it is a folder, a pipe or a device, not a file")
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(
    path: str | Path, remedy: str, most: int = MOST_JSON_BYTES
) -> bytes:
    """The content of a file, decompressed if it is compressed by gzip."""
    try:
        with ExitStack() as stack:
            stream: Any = stack.enter_context(open_plain(path))
            packed = stream.peek(2)[:2] == GZIP
            if Path(path).suffix == ".gz" and not packed:
                raise gzip.BadGzipFile("no gzip header")
            if packed:
                stream = stack.enter_context(gzip.GzipFile(fileobj=stream))
            content = stream.read(most + 1)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; {remedy}.") from None
    except (OSError, EOFError, zlib.error) as error:
        _not_whole(path, getattr(error, "strerror", None) or error, remedy)
    if len(content) > most:
        _not_whole(path, f"it holds more than {most // MB} MB", remedy)
    return content


def read_text(
    path: str | Path, remedy: str, most: int = MOST_JSON_BYTES
) -> str:
    """As :func:`read_bytes`, in UTF-8, without a byte order mark."""
    try:
        return read_bytes(path, remedy, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: cannot be read as UTF-8 text ({error}); {remedy}."
        ) from None


def read_json(
    path: str | Path, remedy: str, most: int = MOST_JSON_BYTES
) -> dict[str, Any]:
    """The one JSON object of a file, which may be compressed by gzip."""
    return parse_json(read_bytes(path, remedy, most), path, remedy)


def parse_json(
    content: bytes | str, path: str | Path, remedy: str
) -> dict[str, Any]:
    """As :func:`read_json`, of content that was read from a place."""
    try:
        text = content if isinstance(content, str) else content.decode()
        if text.count("[") + text.count("{") > MOST_PARTS:
            raise ValueError(f"it has more than {MOST_PARTS} parts")
        found = json.loads(text, parse_constant=_no_number)
        check_values(found, finite=True)
    except (ValueError, RecursionError) as error:
        _not_whole(path, error, remedy)
    if not isinstance(found, dict):
        raise InputError(
            f"{path}: holds a {type(found).__name__}, not an object of keys "
            f"and values; {remedy}."
        )
    return found


def has_schema(path: str | Path, schema: str) -> bool:
    """Whether a JSON file is there that says it is of a schema."""
    try:
        return read_json(path, "").get("schema") == schema
    except InputError:
        return False


def read_yaml(path: str | Path, remedy: str) -> Any:
    """The plain values of a YAML file: no tags that build, no aliases."""
    text = _yaml_text(path, remedy, aliases=False)
    try:
        found = yaml.load(text, LOADER)
        check_values(found)
    # What PyYAML raises for a wrong date, number or !!bool is any of these.
    except (yaml.YAMLError, *_WRONG_SCALARS) as error:
        _no_yaml(path, error, remedy)
    return found


_WRONG_SCALARS = (
    ValueError,
    ArithmeticError,
    TypeError,
    AttributeError,
    LookupError,
)


def compose_yaml(path: str | Path, remedy: str) -> yaml.MappingNode:
    """The nodes of a YAML file of keys and values; nothing is built."""
    text = _yaml_text(path, remedy, aliases=True)
    try:
        root = yaml.compose(text, LOADER)
    except yaml.YAMLError as error:
        _no_yaml(path, error, remedy)
    if not isinstance(root, yaml.MappingNode):
        raise InputError(f"{path}: holds no keys; {remedy}.")
    return root


def check_values(value: Any, finite: bool = False) -> None:
    """Raise ValueError for values that would be trouble later."""
    queue = [(value, 0)]
    while queue:
        value, depth = queue.pop()
        if isinstance(value, int):
            if abs(value) > LARGEST_INT:
                raise ValueError("it holds a whole number beyond 2**63")
        elif isinstance(value, float):
            if finite and not math.isfinite(value):
                raise ValueError(
                    "it holds an infinite number, which is no number"
                )
        elif isinstance(value, dict | list | tuple | set):
            if depth >= MOST_DEPTH:
                raise ValueError(f"it is nested more than {MOST_DEPTH} deep")
            if isinstance(value, dict):
                queue.extend((each, depth + 1) for each in value)
                value = value.values()
            queue.extend((each, depth + 1) for each in value)


def _yaml_text(path: str | Path, remedy: str, aliases: bool) -> str:
    """The text of a YAML file that can be parsed without surprises."""
    try:
        text = read_bytes(path, remedy, MOST_YAML_BYTES).decode()
        depth = 0
        for count, event in enumerate(yaml.parse(text, LOADER)):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif isinstance(event, yaml.AliasEvent) and not aliases:
                raise ValueError(f"the alias *{event.anchor[:40]} is not read")
            elif isinstance(event, yaml.ScalarEvent):
                if len(event.value) > MOST_SCALAR:
                    raise ValueError(
                        f"a value has more than {MOST_SCALAR} characters"
                    )
            if depth > MOST_DEPTH or count > MOST_EVENTS:
                raise ValueError("it is nested too deeply, or too long")
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        _no_yaml(path, error, remedy)
    return text


def _no_yaml(path: str | Path, error: Exception, remedy: str) -> NoReturn:
    raise InputError(
        f"{path}: not a YAML file of plain values ({one_line(error)}); "
        f"{remedy}."
    ) from None


def _not_whole(path: str | Path, cause: Any, remedy: str) -> NoReturn:
    raise InputError(
        f"{path}: not a whole file of its kind ({one_line(cause)}); {remedy}."
    ) from None


def _no_number(name: str) -> None:
    raise ValueError(f"it holds {name}, which is no number")
