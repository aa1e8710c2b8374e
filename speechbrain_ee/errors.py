"""The one error that is meant for the person at the keyboard.

Everything a user can get wrong (a folder, a file, a key, a value) ends in an
:class:`InputError` whose message names the culprit and the way out. The
command line and the recipe print that paragraph and exit with status 2; a
traceback is left for the errors that are ours.

Authors
 * The speechbrain-ee contributors 2026
"""

import errno
import functools
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

EXIT_STATUS = 2  # what argparse uses for wrong arguments, too
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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


def exits_on_input_error(main: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a program's entry point: InputError becomes exit status 2.

    Arguments
    ---------
    main : callable
        The entry point.

    Returns
    -------
    callable
        The same, printing the paragraph to standard error and leaving with
        status 2 instead of showing a traceback. So does a full disk.
    """

    @functools.wraps(main)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        # What cannot be logged, for example because the disk is full, is no
        # reason for a traceback per line.
        logging.raiseExceptions = False
        try:
            return main(*args, **kwargs)
        except InputError as error:
            # A loader's worker process sends its traceback as the message.
            paragraph = str(error).rpartition("InputError: ")[2].strip()
            sys.stderr.write(f"\nerror: {paragraph}\n")
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


def drop_standard_output() -> None:
    """Forget what cannot be written there; Python would try once more."""
    try:
        place = sys.stdout.fileno()
    except (AttributeError, OSError):  # a notebook's, or none
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), place)


def one_line(error: BaseException, limit: int = 200) -> str:
    """What went wrong, on one line, for the message of an InputError.

    Arguments
    ---------
    error : BaseException
        What a library raised.
    limit : int
        Most characters.

    Returns
    -------
    str

    Example
    -------
    >>> one_line(OSError("no\\n  space"))
    'no space'
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else f"{text[:limit]} ..."
