"""What a trained model is worth: numbers from the traces that it left.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.curves import OperatingPoint, measure
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.exits.trace_file import read_trace
from speechbrain_ee.sweeps.objective import LAST, POLICIES, Objective

_FIELDS = {"wer": "wer", "macs": "avg_macs", "layers": "avg_layer"}


def outcome(folder: Path, objectives: Sequence[Objective]) -> list[float]:
    """The values of a finished training.

    Arguments
    ---------
    folder : Path
        Its ``output_folder``.
    objectives : sequence of Objective
        What is asked for.

    Returns
    -------
    list of float

    Raises
    ------
    InputError
        If the training left nothing of the kind.
    """
    values = []
    for objective in objectives:
        trace = _trace(folder, objective.set)
        point = _point(folder, trace, objective.at)
        value = getattr(point, _FIELDS[objective.metric])
        if value is None or not math.isfinite(value):
            raise InputError(
                f"objective {objective.label}: {trace.source} does not tell it."
            )
        values.append(float(value))
    return values


def _trace(folder: Path, name: str) -> Trace:
    path = folder / "traces" / f"{name}.jsonl.gz"
    if not path.is_file():
        there = sorted(
            each.name.removesuffix(".jsonl.gz")
            for each in path.parent.glob("*.jsonl.gz")
        )
        raise InputError(
            f"objective: {path} is not there; sets with a trace: "
            f"{', '.join(there) or 'none'}. A model with one exit leaves "
            "traces of test sets only."
        )
    return read_trace(path)


def _point(folder: Path, trace: Trace, at: str | int) -> OperatingPoint:
    exits = len(trace.header.exit_layers)
    if at not in POLICIES:
        exit_ = exits if at == LAST else at
        if exit_ > exits:
            raise InputError(
                f"objective: at exit {exit_}, but {trace.source} has {exits}."
            )
        return measure(trace, np.full(len(trace.records), exit_ - 1))
    return _policy_point(folder / "save/policies" / f"learned.{at}.yaml", trace)


def _policy_point(path: Path, trace: Trace) -> OperatingPoint:
    # These load torch, which takes longer than all the rest of a worker.
    from speechbrain_ee.evaluation.policies import choice_of, scored_for
    from speechbrain_ee.exits.calibration.policy_file import read_policy

    policy = read_policy(path)
    (trace,) = scored_for([trace], path, policy)
    choice_N, cost_NE = choice_of(trace, policy)
    return measure(trace, choice_N, None, cost_NE)
