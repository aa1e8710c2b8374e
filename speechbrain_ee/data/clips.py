"""Parts of files: an utterance in a long recording, or in a shard.

The column ``wav`` of a manifest usually names a whole file. A part of a file
is written behind its name, so that a manifest keeps its columns and whoever
does not know the notation fails instead of hearing the whole file:

``talk.sph?samples=160000+48000``
    48000 samples from sample 160000, counted from 0.
``train-000007.tar?bytes=1536+34021&crc32=9ae0daaf``
    A sound file of 34021 bytes inside another file, and its checksum.

Authors
 * The speechbrain-ee contributors 2026
"""

import re
from dataclasses import dataclass

SAMPLES, BYTES = "samples", "bytes"
NOTATION = re.compile(
    r"(?s)(?P<path>.+)\?(?P<unit>samples|bytes)="
    r"(?P<start>\d+)\+(?P<length>\d+)(?:&crc32=(?P<crc32>[0-9a-f]{8}))?"
)


@dataclass(frozen=True)
class Clip:
    """A part of a file.

    Arguments
    ---------
    path : str
        The file; of a shard also a URL.
    unit : str
        What start and length count, ``samples`` or ``bytes``.
    start : int
        Where the part begins, from 0.
    length : int
        How long it is.
    crc32 : str or None
        Checksum of bytes, eight hexadecimal digits.

    Example
    -------
    >>> clip = Clip.parse("talk.sph?samples=160000+48000")
    >>> clip.start, str(clip)
    (160000, 'talk.sph?samples=160000+48000')
    >>> Clip.parse("whole.flac") is None
    True
    """

    path: str
    unit: str
    start: int
    length: int
    crc32: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Clip | None":
        """Read the notation."""
        found = NOTATION.fullmatch(text)
        if found is None:
            return None
        start, length = int(found["start"]), int(found["length"])
        path, unit = found["path"], found["unit"]
        return cls(path, unit, start, length, found["crc32"])

    def __str__(self) -> str:
        """The notation."""
        checksum = f"&crc32={self.crc32}" if self.crc32 else ""
        span = f"{self.unit}={self.start}+{self.length}"
        return f"{self.path}?{span}{checksum}"
