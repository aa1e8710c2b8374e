"""Evidence cut into steps: which quantiles of training a value exceeds.

A sum of weighted evidence can only be straight in each measure. An N-best
posterior, for one, says nearly nothing below 0.9 and much between 0.99 and
1; steps at its quantiles let a linear model follow that.

Axes: N utterances, E exits, P features.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.selector.features import ExitFeatures

# By measure: where its steps are, at one exit.
Steps = Mapping[str, tuple[float, ...]]

_QUANTILES = np.linspace(0.1, 0.9, 9)


def fit_steps(evidence: Evidence, measures: Sequence[str], exit_: int) -> Steps:
    """Quantiles of each measure at an exit.

    Arguments
    ---------
    evidence : Evidence
        Of development data.
    measures : sequence of str
        Measurements to cut; those without a value at the exit are left out.
    exit_ : int
        The exit's column, counted from 0.

    Returns
    -------
    mapping of str to tuple of float
        Increasing, without repetitions.

    Example
    -------
    >>> values_NE = np.arange(101.0)[:, None] / 100
    >>> evidence = Evidence(
    ...     np.array([2]), [f"u{i}" for i in range(101)], {"max_prob": values_NE}
    ... )
    >>> steps = fit_steps(evidence, ["max_prob"], 0)
    >>> [round(step, 2) for step in steps["max_prob"]][:3]
    [0.1, 0.2, 0.3]
    """
    steps = {}
    for name in measures:
        values_N = evidence.column(name)[:, exit_]
        if not np.isnan(values_N).any():
            found = np.unique(np.quantile(values_N, _QUANTILES))
            steps[name] = tuple(found.tolist())
    return steps


def with_steps(
    features: ExitFeatures, evidence: Evidence, steps: Steps, exit_: int
) -> ExitFeatures:
    """Features and, for every step, whether a measure is beyond it.

    Arguments
    ---------
    features : ExitFeatures
        At the exit.
    evidence : Evidence
        At least up to that exit.
    steps : mapping of str to tuple of float
        Of that exit, see :func:`fit_steps`.
    exit_ : int
        The exit's column, counted from 0.

    Returns
    -------
    ExitFeatures
    """
    names, blocks = list(features.names), [features.values_NP]
    for name, places in steps.items():
        values_N1 = evidence.column(name)[:, exit_ : exit_ + 1]
        beyond_NP: NDArray[np.bool_] = values_N1 > np.array(places)
        blocks.append(beyond_NP.astype(np.float64))
        names += [f"frames {name} step {n}" for n in range(len(places))]
    return ExitFeatures(tuple(names), np.concatenate(blocks, axis=1))
