"""Files of a folder of shards, written whole or not at all.

Authors
 * The speechbrain-ee contributors 2026
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from speechbrain_ee.errors import InputError, one_line


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears under its name only when complete.

    Arguments
    ---------
    path : Path
        The file to write or replace; its folder is made if missing.

    Yields
    ------
    binary stream

    Raises
    ------
    InputError
        If it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as stream:
            yield stream
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or one_line(error)}); "
            "make room or give another folder. The same command goes on where "
            "it stopped."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
