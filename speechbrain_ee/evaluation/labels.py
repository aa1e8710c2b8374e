"""How names and numbers are written in tables, figures and sentences.

Authors
 * The speechbrain-ee contributors 2026
"""

from speechbrain_ee.evaluation.rows import Cell
from speechbrain_ee.exits.trace import TraceHeader

LABELS = {
    "fixed": "fixed exit",
    "mixture": "mix of two fixed exits",
    "max_prob": "maximum probability",
    "max_prob_nonblank": "maximum probability, non-blank",
    "entropy_nonblank": "entropy, non-blank",
    "entropy_nats": "entropy in nats",
    "margin_nonblank": "margin, non-blank",
    "token_quantile_nonblank": "token quantile, non-blank",
    "tsallis_mean": "Tsallis entropy, mean",
    "tsallis_min": "Tsallis entropy, least certain",
    "nbest_posterior": "N-best posterior",
    "ctc_forward": "CTC forward score",
    "ctc_forward_per_frame": "CTC forward score per frame",
    "hidden_cosine": "cosine of hidden states",
    "agreement": "agreement of transcripts",
    "patience_transcript": "patience on transcripts",
    "patience_distribution": "patience on distributions",
    "plausibility": "plausibility of the text",
    "beam_score": "attention beam score",
    "beam_posterior": "attention beam posterior",
    "token_confidence": "attention token confidence",
    "token_confidence_min": "least attention token confidence",
}
DECODINGS = {
    "greedy": "CTC greedy",
    "ctc_greedy": "CTC greedy",
    "ctc_beam": "CTC beam",
}


def label(name: str) -> str:
    """How a way of choosing exits is called in tables and figures.

    Arguments
    ---------
    name : str
        Name of a result.

    Returns
    -------
    str

    Example
    -------
    >>> label("max_prob_nonblank")
    'maximum probability, non-blank'
    >>> label("tsallis_mean:alpha=0.5")
    'Tsallis entropy, mean (alpha=0.5)'
    """
    stem, _, parameters = name.partition(":")
    text = LABELS.get(stem, stem.replace("_", " "))
    return f"{text} ({parameters})" if parameters else text


def decoding_label(name: str) -> str:
    """How a way of decoding is called in tables.

    Arguments
    ---------
    name : str
        As in the header of a trace.

    Returns
    -------
    str

    Example
    -------
    >>> decoding_label("ctc_beam"), decoding_label("joint")
    ('CTC beam', 'joint')
    """
    return DECODINGS.get(name, name.replace("_", " "))


def decoding_said(header: TraceHeader) -> str:
    """How a trace was decoded, as the end of a line.

    Arguments
    ---------
    header : TraceHeader
        Of the trace.

    Returns
    -------
    str
        Empty for the greedy path, which goes without saying.
    """
    if header.decoding == "greedy":
        return ""
    return f"; decoding: {decoding_label(header.decoding)}"


def giga(macs: Cell, full: float | None) -> str:
    """Multiply-accumulates in units of 10^9, small models in more detail.

    Arguments
    ---------
    macs : int or float, optional
        Multiply-accumulates.
    full : float, optional
        Those of a full pass.

    Returns
    -------
    str
        Empty without a value.

    Example
    -------
    >>> giga(1.5e9, 2.1e9), giga(5.5e7, 1.8e8)
    ('1.50', '0.055')
    """
    if macs is None:
        return ""
    decimals = 2 if (full or macs) >= 1e9 else 3
    return f"{macs / 1e9:.{decimals}f}"


def number(value: Cell) -> str:
    """A number with two decimals.

    Arguments
    ---------
    value : int or float, optional
        The number.

    Returns
    -------
    str
        Empty without a value.

    Example
    -------
    >>> number(5), number(None)
    ('5.00', '')
    """
    return "" if value is None else f"{float(value):.2f}"


def policy_letter(number: int) -> str:
    """The letter that marks a policy in figures.

    Arguments
    ---------
    number : int
        Its place among the given policies, counted from 0.

    Returns
    -------
    str

    Example
    -------
    >>> policy_letter(1)
    'B'
    """
    return chr(ord("A") + number % 26)
