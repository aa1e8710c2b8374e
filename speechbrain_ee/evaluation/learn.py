"""Learning to choose exits from a trace: the command ``learn``.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
from pathlib import Path

from speechbrain_ee.data.words import normalised
from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.tables import aligned
from speechbrain_ee.exits.selector.selector import LearnedSelector
from speechbrain_ee.exits.selector.selector_file import write_selector
from speechbrain_ee.exits.trace_file import read_trace, write_trace

logger = logging.getLogger(__name__)
SELECTOR_FILE = "exit_selector.json.gz"


def learn_command(
    trace: str | Path,
    out: str | Path,
    texts: str | Path | None = None,
    speakers_from_ids: bool = False,
) -> str:
    """What ``python -m speechbrain_ee learn`` does.

    Writes the selector and the trace with its scores, those of each
    utterance from fits without it; ``calibrate`` takes that trace.
    """
    data, folder = read_trace(trace), Path(out)
    if speakers_from_ids:
        data = data.with_speakers_from_ids()
    target = folder / Path(trace).name
    if target.resolve() == Path(trace).resolve():
        raise InputError(
            f"--out {folder}: the trace itself lies there; choose another "
            f"folder."
        )
    lines = [] if texts is None else _lines(Path(texts))
    selector, scores_NE = LearnedSelector.fit_left_out(data, lines)
    scored = data.with_evidence("learned", scores_NE)
    write_selector(folder / SELECTOR_FILE, selector)
    write_trace(target, scored.header, scored.records)
    shares = [["what the predictions rest on", "share %"]]
    for name, share in selector.explain().items():
        shares.append([name, f"{100 * share:.0f}"])
    return (
        f"{aligned(shares)}\n\nSelector  {folder / SELECTOR_FILE}\n"
        f"Trace     {target}"
    )


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read as text ({error}); give transcripts in "
            f"UTF-8, one per line."
        ) from None
    return [line for line in map(normalised, text.splitlines()) if line]
