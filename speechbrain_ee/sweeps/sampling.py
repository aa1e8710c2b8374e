"""Which values each point of a search has.

Of ``random``, ``qmc`` and ``grid``, point n depends on the seed and on n
alone: not on who draws it, nor on what other points gave. Any number of
workers therefore searches the points that one alone would have searched.
``tpe`` looks at what is known at the time, so that its points depend on the
order in which trials end.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, TPESampler

from speechbrain_ee.errors import InputError
from speechbrain_ee.sweeps.space import Parameter

SAMPLERS = ("random", "qmc", "grid", "tpe")
_STARTUP = 10  # points that tpe draws at random


def check_sampler(
    sampler: str, space: Sequence[Parameter], trials: int | None
) -> int:
    """How many points there are.

    Arguments
    ---------
    sampler : str
        One of ``SAMPLERS``.
    space : sequence of Parameter
        What is searched.
    trials : int, optional
        How many are asked for; a grid has so many as it has.

    Returns
    -------
    int

    Raises
    ------
    InputError
        If the sampler is unknown, cannot search this space, or needs to be
        told how many points.
    """
    if sampler not in SAMPLERS:
        raise InputError(
            f"sampler: {sampler!r} is none of {', '.join(SAMPLERS)}."
        )
    if sampler != "grid":
        if trials is None:
            raise InputError(
                f"trials: missing; {sampler} must be told how many points to "
                "try, for example trials: 32."
            )
        return trials
    for parameter in space:
        if parameter.values is None:
            raise InputError(
                f"space, {parameter.key}: a grid needs values that can be "
                "counted: give choices, or a step without log."
            )
    size = math.prod(len(parameter.values) for parameter in space)
    return size if trials is None else min(size, trials)


def draw(
    sampler: str,
    seed: int,
    point: int,
    space: Sequence[Parameter],
    study: optuna.Study,
) -> dict[str, Any]:
    """The values of one point.

    Arguments
    ---------
    sampler : str
        One of ``SAMPLERS``.
    seed : int
        Of the search.
    point : int
        Counted from 0.
    space : sequence of Parameter
        What is searched.
    study : optuna.Study
        What ``tpe`` looks at; loaded for this call, since a study that was
        asked before answers with the trials of then.

    Returns
    -------
    dict of str to object
        Values by key.
    """
    if sampler == "tpe":
        return _tpe(seed, point, space, study)
    if sampler == "grid":
        sizes = [len(parameter.values) for parameter in space]
        places = np.unravel_index(point, sizes)
        return {
            parameter.key: parameter.values[place]
            for parameter, place in zip(space, places, strict=True)
        }
    units = _units(sampler, seed, point, len(space))
    return {
        parameter.key: parameter.value(unit)
        for parameter, unit in zip(space, units, strict=True)
    }


def _units(sampler: str, seed: int, point: int, size: int) -> list[float]:
    if sampler == "random":
        return np.random.default_rng([seed, point]).random(size).tolist()
    from scipy.stats import qmc  # takes seconds, and not every worker asks

    sobol = qmc.Sobol(size, scramble=True, rng=np.random.default_rng(seed))
    if point:
        sobol.fast_forward(point)
    return sobol.random(1)[0].tolist()


def _tpe(
    seed: int, point: int, space: Sequence[Parameter], study: optuna.Study
) -> dict[str, Any]:
    state = np.random.SeedSequence([seed, point]).generate_state(1)[0]
    # what others are trying at the moment counts as bad: try something else
    sampler: BaseSampler = TPESampler(
        seed=int(state),
        n_startup_trials=_STARTUP,
        multivariate=False,
        constant_liar=True,
    )
    trial = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING)
    return {
        parameter.key: parameter.meant(
            sampler.sample_independent(
                study, trial, parameter.key, parameter.distribution
            )
        )
        for parameter in space
    }
