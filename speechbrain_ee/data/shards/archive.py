"""One archive of utterances.

Authors
 * The speechbrain-ee contributors 2026
"""

import hashlib
import io
import json
import re
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import soundfile

from speechbrain_ee.data.clips import BYTES, Clip
from speechbrain_ee.data.shards.plan import Source
from speechbrain_ee.errors import InputError, one_line

Row = list[str]  # of the manifest
# webdataset takes what is before the first dot for the name.
NO_KEY = re.compile(r"[./\\\s]")
FLAC_SUBTYPES = ("PCM_S8", "PCM_16", "PCM_24")


class Hashing:
    """A stream that counts and hashes what is written to it."""

    def __init__(self, stream: BinaryIO):
        self.stream = stream
        self.sha256 = hashlib.sha256()
        self.written = 0

    def write(self, data: bytes) -> int:
        """Pass bytes on."""
        self.sha256.update(data)
        self.written += len(data)
        return self.stream.write(data)

    def tell(self) -> int:
        """How many bytes were written."""
        return self.written


def write_shard(stream: Any, file: str, sources: Sequence[Source]) -> list[Row]:
    """Write one archive."""
    rows, keys = [], set()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as t:
        for number, source in enumerate(sources):
            key = NO_KEY.sub("_", source.name)
            key = f"{key}_{number}" if key in keys else key
            keys.add(key)
            sound, suffix = sound_file(source)
            _add(t, f"{key}.{suffix}", sound)
            # what was written last ends at the next multiple of a block
            filled = -(-len(sound) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            start = t.offset - filled
            _add(t, f"{key}.json", _facts(source))
            checksum = f"{zlib.crc32(sound):08x}"
            clip = Clip(file, BYTES, start, len(sound), checksum)
            row = [source.name, source.duration, str(clip)]
            rows.append([*row, source.speaker, source.words])
    return rows


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    # No owner, mode or time of the machine that writes it.
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _facts(source: Source) -> bytes:
    facts = {
        "id": source.name,
        "duration": float(source.duration),
        "spk_id": source.speaker,
        "wrd": source.words,
    }
    return json.dumps(facts, ensure_ascii=False).encode()


def sound_file(source: Source) -> tuple[bytes, str]:
    """The sound file of an utterance."""
    clip = Clip.parse(source.wav)
    try:
        if clip is None:
            path = Path(source.wav)
            return path.read_bytes(), path.suffix.lstrip(".").lower() or "audio"
        return _coded(clip)
    except (OSError, soundfile.SoundFileError) as error:
        raise InputError(
            f"{source.wav}: the audio of {source.name} cannot be read "
            f"({one_line(error)}); mend it, or prepare the data again."
        ) from error


def _coded(clip: Clip) -> tuple[bytes, str]:
    with soundfile.SoundFile(clip.path) as audio:
        # FLAC holds 24 bits; other codecs decode to floats.
        subtype = audio.subtype if audio.subtype in FLAC_SUBTYPES else None
        audio.seek(min(clip.start, audio.frames))
        kind = "int32" if subtype else "float32"
        samples = audio.read(clip.length, dtype=kind)
        rate = audio.samplerate
    if len(samples) != clip.length:
        raise OSError(f"it ends {clip.length - len(samples)} samples too early")
    coded = io.BytesIO()
    kind = ("FLAC", subtype) if subtype else ("WAV", "FLOAT")
    soundfile.write(coded, samples, rate, kind[1], format=kind[0])
    return coded.getvalue(), kind[0].lower()
