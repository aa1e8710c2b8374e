"""The one error that is meant for the person at the keyboard.

Everything a user can get wrong (a folder, a file, a key, a value) ends in an
:class:`InputError` whose message names the culprit and the way out. The
command line and the recipe print that paragraph and exit with status 2. Ctrl-C
is one line and status 130. A traceback is left for the errors that are ours.

Authors
 * The speechbrain-ee contributors 2026
"""

import errno
import functools
import logging
import os
import reprlib
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

logger = logging.getLogger(__name__)

EXIT_STATUS = 2  # what argparse uses for wrong arguments, too
INTERRUPTED = 130  # what a shell says of a command that Ctrl-C ended
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Characters of a message: its begin, and its end, where the way out stands
# (or, behind a worker's traceback, all of it).
_HEAD, _TAIL = 1000, 3000


class InputError(ValueError):
    """Something that the user gave cannot be used.

    Arguments
    ---------
    message : str
        One paragraph: which file or key, what is wrong, what to do.

    Example
    -------
    >>> raise InputError("data_folder: /no/such does not exist; pass ...")
    Traceback (most recent call last):
    ...
    speechbrain_ee.errors.InputError: data_folder: /no/such does not ...
    """

    def __init__(self, message: str = ""):
        text = str(message)
        if len(text) > _HEAD + _TAIL:
            text = f"{text[:_HEAD]} ... {text[-_TAIL:]}"
        super().__init__(text)


def exits_on_input_error(main: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a program's entry point: InputError becomes exit status 2."""

    @functools.wraps(main)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        # What cannot be logged, for example because the disk is full, is no
        # reason for a traceback per line.
        logging.raiseExceptions = False
        try:
            with ends_on_interrupt():
                return main(*args, **kwargs)
        except InputError as error:
            # A loader's worker process sends its traceback as the message.
            paragraph = str(error).rpartition("InputError: ")[2].strip()
            sys.stderr.write(f"\nerror: {paragraph}\n{users_line(error)}")
            sys.exit(EXIT_STATUS)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            place = error.filename or "standard output or output_folder"
            drop_standard_output()
            sys.stderr.write(
                f"\nerror: {place}: cannot be written ({error.strerror}). "
                "Make room or raise the quota, and start the same command "
                "again; a training goes on from its last complete "
                "checkpoint.\n"
            )
            sys.exit(EXIT_STATUS)

    return guarded


def users_line(error: BaseException) -> str:
    """The line of a user's own code that an error comes from."""
    found, seen = "", error
    while seen := _reason(seen):
        for at in traceback.extract_tb(seen.__traceback__):
            if not at.filename.startswith(_INSTALLED):
                found = f"  {at.filename}, line {at.lineno}: {at.line}\n"
    return found


def _reason(error: BaseException) -> BaseException | None:
    """What an error was raised from; None where it was `from None`."""
    if error.__suppress_context__:
        return error.__cause__
    return error.__context__


_INSTALLED = (
    os.path.dirname(__file__),
    *map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")),
    "<",
)


def quoted(value: Any) -> str:
    """A value from a file as a message shows it, whatever its size.

    Example
    -------
    >>> quoted("fast"), quoted([1] * 10**6)
    ("'fast'", '[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, ...]')
    """
    try:
        return _SHORT.repr(value)
    except (ValueError, RecursionError):  # whole numbers of 5000 digits
        return f"a {type(value).__name__} that is too long to show"


_SHORT = reprlib.Repr()
_SHORT.maxlevel = 3
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 12
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 80


@contextmanager
def ends_on_interrupt() -> Iterator[None]:
    """Have Ctrl-C end this process with one line and status 130.

    A script imports in it what takes seconds to import:
    :func:`exits_on_input_error` is not yet at work there.

    Example
    -------
    >>> with ends_on_interrupt():
    ...     raise KeyboardInterrupt
    Traceback (most recent call last):
    ...
    SystemExit: 130
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if not _is_interrupt(error):
            raise
        sys.stderr.write("\ninterrupted.\n")
        raise SystemExit(INTERRUPTED) from None


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether an error is Ctrl-C, or comes of it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def drop_standard_output() -> None:
    """Forget what cannot be written there; Python would try once more."""
    try:
        place = sys.stdout.fileno()
    except (AttributeError, OSError):  # a notebook's, or none
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), place)


def one_line(error: BaseException | str, limit: int = 200) -> str:
    """What went wrong, on one line, for the message of an InputError.

    Example
    -------
    >>> one_line(OSError("no\\n  space"))
    'no space'
    """
    try:
        text = " ".join(str(error).split()) or type(error).__name__
    except (ValueError, RecursionError):  # it quotes what cannot be shown
        text = type(error).__name__
    return text if len(text) <= limit else f"{text[:limit]} ..."
