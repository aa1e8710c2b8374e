"""Where transcripts go: standard output, a file, or a folder of files.

Files are written whole or not at all. A file of many transcripts takes its
place when the run ends, also when it is ended by an error or an interrupt.

Authors
 * The speechbrain-ee contributors 2026
"""

import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from speechbrain_ee.errors import InputError
from speechbrain_ee.files import whole_file
from speechbrain_ee.inference.recordings.files import Recording
from speechbrain_ee.inference.recordings.formats import Format, summary_data
from speechbrain_ee.inference.recordings.transcript import Summary, Transcript

SUMMARY_FILE = "_summary.json"


class StreamOutput:
    """All transcripts one behind the other.

    Arguments
    ---------
    stream : text stream
        Where they go.
    form : Format
        How they are written.
    several : bool
        Whether more than one recording was asked for.
    """

    def __init__(self, stream: TextIO, form: Format, several: bool):
        self.stream = stream
        self.form = form
        self.entries = several or form.always_entries
        self._count = 0
        if self.entries:
            stream.write(form.head)

    def write(self, transcript: Transcript) -> None:
        """Write a transcript at once."""
        text = self.form.document(transcript)
        if self.entries:
            text = self.form.entry(transcript)
            self.stream.write(self.form.between if self._count else "")
        self.stream.write(text)
        self.stream.flush()
        self._count += 1

    def finish(self, summary: Summary) -> None:
        """Write what stands behind the last transcript."""
        if self.entries:
            self.stream.write(self.form.tail(summary))
        self.stream.flush()


class FolderOutput:
    """A file per transcript, named after the recording.

    Arguments
    ---------
    folder : Path
        Where they go; made if missing.
    form : Format
        How they are written.
    """

    def __init__(self, folder: Path, form: Format):
        self.folder = folder
        self.form = form

    def write(self, transcript: Transcript) -> None:
        """Write a transcript's file."""
        target = self.folder / f"{transcript.id}.{self.form.name}"
        with whole_file(target) as stream:
            stream.write(self.form.document(transcript).encode())

    def finish(self, summary: Summary) -> None:
        """Write the summary, if the format has one."""
        if self.form.always_entries:
            text = json.dumps(summary_data(summary), indent=2) + "\n"
            with whole_file(self.folder / SUMMARY_FILE) as stream:
                stream.write(text.encode())


@contextmanager
def open_output(
    out: str | None, form: Format, recordings: Sequence[Recording]
) -> Iterator[StreamOutput | FolderOutput]:
    """Where transcripts go.

    Arguments
    ---------
    out : str, optional
        A folder, if there is one, or if the name has no suffix or ends in a
        slash; else a file; without it standard output.
    form : Format
        How they are written.
    recordings : sequence of Recording
        What was asked for.

    Yields
    ------
    StreamOutput or FolderOutput

    Raises
    ------
    InputError
        If a file would hold several transcripts and the format has no such
        files, if ``out`` is one of the recordings, or if it
        cannot be written.
    """
    if out is not None and _is_folder(out):
        yield FolderOutput(Path(out), form)
        return
    several = len(recordings) > 1
    if out is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # As in files: no letter of a transcript is lost to a locale.
            sys.stdout.reconfigure(encoding="utf-8")
        yield StreamOutput(sys.stdout, form, several)
        return
    if several and form.own_files:
        raise InputError(
            f"out: {out} cannot hold {form.name} of {len(recordings)} "
            "recordings; give a folder with --out."
        )
    inputs = {os.path.realpath(recording.path) for recording in recordings}
    if os.path.realpath(out) in inputs:
        raise InputError(
            f"out: {out} is a recording that shall be transcribed and would "
            "be overwritten; choose another name."
        )
    ended: BaseException | None = None
    with whole_file(Path(out)) as binary:
        text = io.TextIOWrapper(binary, encoding="utf-8", write_through=True)
        try:
            yield StreamOutput(text, form, several)
        except BaseException as error:  # what is done shall stay
            ended = error
        text.flush()
        text.detach()
    if ended is not None:
        raise ended


def _is_folder(out: str) -> bool:
    return os.path.isdir(out) or out.endswith("/") or not Path(out).suffix
