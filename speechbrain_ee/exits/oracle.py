"""The oracle: the exit one would take if the errors were known.

It bounds what any criterion can reach. After the optimal bound of Berrebbi
et al. 2023 (arXiv 2211.08989). Ties always go to the earlier exit.

Axes: N utterances, E exits; an exit is a column counted from 0.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
from numpy.typing import NDArray


def earliest_best(errors_NE: NDArray[np.integer]) -> NDArray[np.int64]:
    """Earliest of the exits with the fewest errors.

    Example
    -------
    >>> earliest_best(np.array([[3, 1, 2], [0, 0, 0]])).tolist()
    [1, 0]
    """
    return errors_NE.argmin(axis=1)


def earliest_no_worse(errors_NE: NDArray[np.integer]) -> NDArray[np.int64]:
    """Earliest exit with no more errors than the last one."""
    return (errors_NE <= errors_NE[:, -1:]).argmax(axis=1)


def lambda_bound(
    errors_NE: NDArray[np.integer],
    costs: NDArray[np.number],
    price: float,
) -> NDArray[np.int64]:
    """Exit that minimises errors + price x cost."""
    return (errors_NE + price * costs).argmin(axis=1)


def overthinking(errors_NE: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Utterances of which an earlier exit is strictly better than the last."""
    return errors_NE.min(axis=1) < errors_NE[:, -1]
