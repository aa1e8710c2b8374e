"""What exits and policies give on test sets, in the numbers of a table.

And what policies take of the last exit's time, on this machine.

Authors
 * The speechbrain-ee contributors 2026
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.curves import OperatingPoint, measure
from speechbrain_ee.evaluation.policies import choice_of
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.inference.live.policy import LivePolicy
from speechbrain_ee.inference.live.runner import LiveRunner


@dataclass(frozen=True)
class Measured:
    """A fixed exit or a policy on a test set.

    Arguments
    ---------
    set : str
        The test set.
    choice : str
        ``exit 3``, or the name of a policy.
    layer : float
        Encoder layers per utterance.
    wer : float
        Word error rate in percent.
    macs : float, optional
        Multiply-accumulates per utterance, those of the criterion included.
    utterances : int
        Of the set.
    """

    set: str
    choice: str
    layer: float
    wer: float
    macs: float | None
    utterances: int

    @property
    def exit(self) -> int | None:
        """Number of the exit, from 1; None for a policy."""
        kind, _, number = self.choice.partition(" ")
        return int(number) if kind == "exit" and number.isdecimal() else None


def measure_choices(
    trace: Trace,
    policies: Mapping[str, ExitPolicy],
    exit_layers: Sequence[int],
) -> tuple[Measured, ...]:
    """Measure all exits and all policies on the sets of a trace.

    Arguments
    ---------
    trace : Trace
        Of one or several test sets.
    policies : mapping of str to ExitPolicy
        By name; those for other exits, or whose evidence the trace lacks,
        are left out.
    exit_layers : sequence of int
        Layers of all exits of the model, some of which the trace has.

    Returns
    -------
    tuple of Measured
    """
    rows = []
    for name in trace.labelled_sets:
        part = trace.subset(name)
        for place, layer in enumerate(trace.header.exit_layers):
            exit = list(exit_layers).index(layer) + 1
            point = measure(part, np.full(len(part), place))
            rows.append(_row(name, f"exit {exit}", point, len(part)))
        for policy_name, policy in policies.items():
            found = get_criterion(policy.criterion)
            given = {*part.evidence_names, "transcripts"}
            fits = policy.exit_layers == trace.header.exit_layers
            if not fits or not set(found.needs) <= given:
                continue
            choice_N, cost_NE = choice_of(part, policy)
            point = measure(part, choice_N, None, cost_NE)
            rows.append(_row(name, policy_name, point, len(part)))
    return tuple(rows)


def time_shares(
    runner: LiveRunner,
    policies: Mapping[str, LivePolicy],
    last: LivePolicy,
    waves: Sequence[torch.Tensor],
    most_s: float = 20.0,
) -> dict[str, float]:
    """What policies take of the time of the last exit, one thread.

    Arguments
    ---------
    runner : LiveRunner
        Transcribes.
    policies : mapping of str to LivePolicy
        By name.
    last : LivePolicy
        What they are compared with.
    waves : sequence of torch.Tensor
        Utterances of shape (samples,); each is transcribed by itself, by all
        in turn, twice, of which the shorter time counts.
    most_s : float
        After so many seconds no further utterance is begun.

    Returns
    -------
    dict of str to float
        Sum over the utterances, by the sum of ``last``; rounded to percents.
    """
    tasks = {**policies, "": last}
    spent_s = dict.fromkeys(tasks, 0.0)
    threads, began_s = torch.get_num_threads(), time.perf_counter()
    torch.set_num_threads(1)
    try:
        for wave in tqdm(waves, desc="timing policies", disable=None):
            batch, whole = wave[None], torch.ones(1)
            runner.run(batch, whole, last)  # tables of this length
            took_s = dict.fromkeys(tasks, np.inf)
            for _ in range(2):
                for name, policy in tasks.items():
                    start_s = time.perf_counter()
                    runner.run(batch, whole, policy)
                    now_s = time.perf_counter()
                    took_s[name] = min(took_s[name], now_s - start_s)
            for name, seconds in took_s.items():
                spent_s[name] += seconds
            if time.perf_counter() - began_s > most_s:
                break
    finally:
        torch.set_num_threads(threads)
    return {name: round(spent_s[name] / spent_s[""], 2) for name in policies}


def measured_rows(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """The table as plain data.

    Arguments
    ---------
    measured : sequence of Measured
        The table.

    Returns
    -------
    list of dict
    """
    return [asdict(row) for row in measured]


def parse_measured(rows: Any, where: str) -> tuple[Measured, ...]:
    """The table from plain data.

    Arguments
    ---------
    rows : Any
        What a file holds.
    where : str
        File and key, for messages.

    Returns
    -------
    tuple of Measured

    Raises
    ------
    InputError
        If it is no such table.
    """
    for row in rows if isinstance(rows, list) else [None]:
        if not isinstance(row, dict) or not _is_row(row):
            raise InputError(
                f"{where}: a list of rows with {', '.join(_KINDS)} is "
                "expected; write the folder again with `python -m "
                "speechbrain_ee export`."
            )
    return tuple(Measured(**row) for row in rows)


_NUMBER = (int, float)
_KINDS = {
    "set": str,
    "choice": str,
    "layer": _NUMBER,
    "wer": _NUMBER,
    "macs": (*_NUMBER, type(None)),
    "utterances": int,
}


def _is_row(row: dict[str, Any]) -> bool:
    return sorted(row) == sorted(_KINDS) and all(
        isinstance(row[key], kind) for key, kind in _KINDS.items()
    )


def _row(
    name: str, choice: str, point: OperatingPoint, utterances: int
) -> Measured:
    macs = point.avg_macs
    return Measured(
        name,
        choice,
        round(point.avg_layer, 4),
        round(point.wer, 4),
        None if macs is None else round(macs),
        utterances,
    )
