"""Calibrated policies, and the small readable YAML file that holds one.

Schema ``exit-policy/1``. The file says which criterion is compared with
which thresholds at which exits, what was promised and on what it was
calibrated, and how the scores were distributed there. It is read with a
loader that builds plain values only.

Axes: B utterances of a batch, N of a trace, E exits, Q stored scores.

Authors
 * The speechbrain-ee contributors 2026
"""

import dataclasses
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from msgspec import defstruct
from msgspec.structs import asdict
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.calibration.budget import Budget
from speechbrain_ee.exits.policy import ThresholdPolicy, check_thresholds
from speechbrain_ee.files import read_yaml, whole_file
from speechbrain_ee.schema import (
    Finite,
    Positive,
    Record,
    Share,
    convert,
    plain,
)

SCHEMA = "exit-policy/1"
_REMEDY = "correct it, or write the policy again with `calibrate`"
_KNOTS = 33  # scores stored, at most
_NOTES = {
    "criterion": "when to stop; scores are higher the readier an exit is",
    "threshold": "stop if the score is at least this",
    "thresholds": "by exit, the last left out; .inf: never stop there",
    "budget": "calibrated by {method}",
    "scores": "distribution on the calibration data, by exit",
}


@dataclass(frozen=True)
class ScoreDistribution:
    """Rising scores of one exit, and the share of utterances up to each.

    Example
    -------
    >>> ScoreDistribution.of(np.array([3.0, 1.0, 1.0, 2.0]))
    ScoreDistribution(scores=(1.0, 2.0, 3.0), shares=(0.5, 0.75, 1.0))
    """

    scores: tuple[float, ...]
    shares: tuple[float, ...]

    @classmethod
    def of(cls, scores_N: NDArray[np.floating]) -> "ScoreDistribution":
        """Quantiles of the scores of a calibration set."""
        ordered_N = np.sort(np.asarray(scores_N, dtype=np.float64))
        places = np.linspace(0, len(ordered_N) - 1, _KNOTS).round().astype(int)
        # six digits are enough: shares are those of the rounded scores
        knots = np.unique([float(f"{s:.6g}") for s in ordered_N[places]])
        knots += 0.0  # no negative zero in a file
        shares = _shares(ordered_N, knots).tolist()
        return cls(tuple(knots.tolist()), tuple(round(s, 6) for s in shares))

    def distance(self, scores_N: NDArray[np.floating]) -> tuple[float, float]:
        """Largest change of the share of utterances up to a score, and that
        score; the change is positive if new data are less ready to stop.
        """
        ordered_N = np.sort(np.asarray(scores_N, dtype=np.float64))
        knots = np.array(self.scores)
        change = _shares(ordered_N, knots) - np.array(self.shares)
        place = int(np.abs(change).argmax())
        return float(change[place]), float(knots[place])


def _shares(
    ordered_N: NDArray[np.floating], knots: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Share of sorted values that are at most each knot."""
    return np.searchsorted(ordered_N, knots, side="right") / len(ordered_N)


@dataclass(frozen=True)
class CalibrationSummary:
    """What a policy was calibrated on and what it reached there."""

    model: str
    decoding: str
    sets: tuple[str, ...]
    utterances: Positive
    words: Positive
    wer_last: Finite  # word error rate of the last exit, percent
    wer: Finite
    avg_layer: Finite
    avg_macs: Finite | None = None
    # hashes by which its utterances are known again; empty if unknown
    fingerprint: tuple[str, ...] = ()
    # what the spread was taken over; None in files that do not say
    clustered_by: Literal["speaker", "utterance"] | None = None
    clusters: Positive | None = None


@dataclass(frozen=True)
class ExitPolicy:
    """A policy with what is known about it; the content of a policy file.

    Arguments
    ---------
    criterion : str
        Name of the criterion, parameters included.
    exit_layers : tuple of E int
        Encoder layer of each exit.
    threshold : float or tuple of E - 1 float
        One score threshold, or one per exit but the last.
    budget : str
        For example ``wer=+5%``.
    method : str
        ``naive``, ``crc`` or ``ltt``.
    delta : float
        Accepted probability of breaking the budget.
    satisfied : bool
        Whether a threshold passed.
    guarantee : str
        What is promised, in words.
    target_utterances : int, optional
        Size of the target set that the promise is about; None: its
        expectation.
    calibration : CalibrationSummary, optional
        What it was calibrated on.
    distributions : tuple of E - 1 ScoreDistribution
        Of the scores there; empty if unknown.
    selector : str, optional
        File of a learned selector that gives the scores, relative to the
        policy file.

    Example
    -------
    >>> policy = ExitPolicy("entropy", (2, 4), -0.1, "wer=+5%", "naive")
    >>> policy.choose(np.array([[-0.05, -0.01], [-0.2, -0.01]])).tolist()
    [0, 1]
    """

    criterion: str
    exit_layers: tuple[int, ...]
    threshold: float | tuple[float, ...]
    budget: str
    method: str
    delta: float = 0.1
    satisfied: bool = True
    guarantee: str = ""
    target_utterances: int | None = None
    calibration: CalibrationSummary | None = None
    distributions: tuple[ScoreDistribution, ...] = ()
    selector: str | None = None

    def __post_init__(self) -> None:
        check_thresholds(self.threshold)

    @property
    def name(self) -> str:
        """For tables and figures."""
        kind = " per exit" if isinstance(self.threshold, tuple) else ""
        return f"{self.criterion}{kind}, {self.budget} ({self.method})"

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Threshold of every exit but the last."""
        if isinstance(self.threshold, tuple):
            return self.threshold
        return (self.threshold,) * (len(self.exit_layers) - 1)

    @property
    def policy(self) -> ThresholdPolicy:
        """Criterion and thresholds alone."""
        exits = len(self.exit_layers)
        return ThresholdPolicy(self.criterion, self.threshold, exits)

    def stop(self, exit: int, score_B: Any) -> Any:
        """See :meth:`ThresholdPolicy.stop`."""
        return self.policy.stop(exit, score_B)

    def choose(self, scores_NE: NDArray[np.floating]) -> NDArray[np.int64]:
        """See :meth:`ThresholdPolicy.choose`."""
        return self.policy.choose(scores_NE)


# The same as a record, which refuses keys that it does not know.
_Summary = defstruct(
    "_Summary",
    [
        (field.name, field.type)
        if field.default is dataclasses.MISSING
        else (field.name, field.type, field.default)
        for field in dataclasses.fields(CalibrationSummary)
    ],
    bases=(Record,),
    omit_defaults=True,
)


class _Scores(Record):
    """The distribution of scores at one exit."""

    layer: Positive
    scores: tuple[float, ...]
    share_at_most: tuple[float, ...]

    def __post_init__(self) -> None:
        shares = (0.0, *self.share_at_most, 1.0)
        if (
            len(self.scores) != len(self.share_at_most)
            or np.isnan(self.scores).any()
            or any(a >= b for a, b in pairwise(self.scores))
            or not all(a <= b for a, b in pairwise(shares))
        ):
            raise ValueError(
                "scores must rise, and the shares (0 to 1), one for each"
            )


class _PolicyFile(Record, kw_only=True):
    """The file, its keys in reading order."""

    schema: Literal["exit-policy/1"]
    criterion: str
    exit_layers: tuple[Positive, ...]
    thresholds: tuple[float, ...] | None = None
    threshold: float | None = None
    selector: str | None = None
    budget: str
    method: Literal["naive", "crc", "ltt"]
    delta: Share
    satisfied: bool
    guarantee: str = ""
    target_utterances: Positive | None = None
    calibration: _Summary | None = None
    scores: tuple[_Scores, ...] = ()

    def __post_init__(self) -> None:
        layers, limits = self.exit_layers, self.thresholds
        if len(layers) < 2 or [*layers] != sorted({*layers}):
            raise ValueError(f"exit_layers {[*layers]} are not rising layers")
        if (self.threshold is None) == (limits is None):
            raise ValueError("give either threshold or thresholds")
        if limits is not None and len(limits) != len(layers) - 1:
            raise ValueError(
                f"thresholds: {len(limits)} numbers where {len(layers) - 1} "
                f"are needed"
            )
        if self.scores and self.calibration is None:
            raise ValueError("scores need calibration, which is missing")
        if self.scores and layers[:-1] != (*(s.layer for s in self.scores),):
            raise ValueError(f"scores are needed of layers {[*layers[:-1]]}")
        try:
            Budget.parse(self.budget)
            check_thresholds(self.threshold if limits is None else limits)
        except InputError as error:
            raise ValueError(str(error).rstrip(".")) from None


def read_policy(path: str | Path) -> ExitPolicy:
    """Read a policy file and check every key of it.

    Arguments
    ---------
    path : str or Path
        A file that follows ``exit-policy/1``.

    Returns
    -------
    ExitPolicy

    Raises
    ------
    InputError
        With file and key, if the file is missing or malformed.
    """
    remedy = f"give the path of a policy file, or {_REMEDY}"
    row = convert(read_yaml(path, remedy), _PolicyFile, path, _REMEDY)
    fields = asdict(row)
    del fields["schema"]
    limits, scores = fields.pop("thresholds"), fields.pop("scores")
    if limits is not None:
        fields["threshold"] = limits
    fields["budget"] = str(Budget.parse(row.budget))
    if row.calibration is not None:
        summary = CalibrationSummary(**asdict(row.calibration))
        fields["calibration"] = summary
    stored = (ScoreDistribution(s.scores, s.share_at_most) for s in scores)
    return ExitPolicy(**fields, distributions=tuple(stored))


def write_policy(path: str | Path, policy: ExitPolicy) -> None:
    """Write a policy file: all of it or nothing.

    Arguments
    ---------
    path : str or Path
        The file.
    policy : ExitPolicy
        Its content.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    fields = vars(policy) | {"schema": SCHEMA}
    fields["exit_layers"] = tuple(map(int, policy.exit_layers))
    stored = zip(fields["exit_layers"], fields.pop("distributions"))
    fields["scores"] = tuple(_Scores(k, s.scores, s.shares) for k, s in stored)
    limits = fields.pop("threshold")
    if isinstance(limits, tuple):
        fields["thresholds"] = tuple(map(float, limits))
    else:
        fields["threshold"] = float(limits)
    if policy.calibration is not None:
        fields["calibration"] = _Summary(**vars(policy.calibration))
    row = _PolicyFile(**fields)
    parts = ["# When may an utterance leave the encoder? An exit policy.\n"]
    for key, value in plain(row).items():
        if value is None or value == ():
            continue
        if key in _NOTES:
            parts.append(f"# {_NOTES[key].format(method=row.method)}")
            simple = key == "threshold" and row.criterion == "entropy"
            if simple and np.isfinite(value):
                parts.append(f" (entropy at most {-value:.6g})")
            parts.append("\n")
        parts.append(
            yaml.dump(
                {key: value},
                Dumper=_Dumper,
                sort_keys=False,
                allow_unicode=True,
                default_flow_style=False,
                width=78,
            )
        )
    with whole_file(path) as stream:
        stream.write("".join(parts).encode())


class _Dumper(yaml.SafeDumper):
    """Mappings by line, lists of plain values in brackets."""


def _represent(dumper: _Dumper, values: tuple[Any, ...]) -> yaml.Node:
    flat = not any(isinstance(value, dict) for value in values)
    tag = "tag:yaml.org,2002:seq"
    return dumper.represent_sequence(tag, values, flow_style=flat)


_Dumper.add_representer(tuple, _represent)
