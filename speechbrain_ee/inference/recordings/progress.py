"""The progress bar of a run of transcription.

Authors
 * The speechbrain-ee contributors 2026
"""

import sys
from types import TracebackType

from tqdm import tqdm

from speechbrain_ee.inference.recordings.transcript import Summary

BAR = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


class Progress:
    """A bar on standard error, if that is a terminal.

    Arguments
    ---------
    recordings : int
        How many there are.
    """

    def __init__(self, recordings: int):
        self.recordings = recordings
        self._bar = tqdm(
            total=recordings,
            file=sys.stderr,
            disable=not sys.stderr.isatty(),
            bar_format=BAR,
        )

    def update(self, done: float, summary: Summary) -> None:
        """Show how far the run is.

        Arguments
        ---------
        done : float
            Recordings that are done, with fractions.
        summary : Summary
            What the run has done so far.
        """
        if self._bar.disable:
            return
        self._bar.set_postfix_str(
            f"{int(done)}/{self.recordings} files, {self.line(summary)}",
            refresh=False,
        )
        # tqdm draws again when enough time has passed.
        self._bar.update(done - self._bar.n)

    @staticmethod
    def line(summary: Summary) -> str:
        """What a run has done, in a line.

        Arguments
        ---------
        summary : Summary
            What it has done.

        Returns
        -------
        str

        Example
        -------
        >>> Progress.line(Summary(3, (), 120.0, 6.0, 7.25, 10**9))
        '120 s of audio in 6.0 s, real-time factor 0.050, 7.2 layers'
        """
        if not summary.duration_s:
            return "nothing heard yet"
        return (
            f"{summary.duration_s:.0f} s of audio in {summary.wall_s:.1f} s, "
            f"real-time factor {summary.real_time_factor:.3f}, "
            f"{summary.mean_layer:.1f} layers"
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
