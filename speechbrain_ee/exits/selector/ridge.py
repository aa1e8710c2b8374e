"""Ridge regression with its strength chosen by leaving one out.

Axes: N utterances, P features, Q targets, R strengths.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

_STRENGTHS = np.geomspace(0.01, 10.0, 13)  # per utterance
_LIMIT = 6.0  # standard deviations beyond which a feature is cut
_FLAT = 1e-9


@dataclass(frozen=True)
class Ridge:
    """Linear predictions of several targets from standardised features.

    Arguments
    ---------
    names : tuple of str
        The features.
    mean_P : array of shape (P,)
        Means of the features in training.
    scale_P : array of shape (P,)
        Their standard deviations.
    weights_PQ : array of shape (P, Q)
        Weights of the standardised features.
    bias_Q : array of shape (Q,)
        Means of the targets.
    shares_P : array of shape (P,)
        Share of the variance of the predictions that goes with each
        feature's term, in training.

    Example
    -------
    >>> x = np.random.default_rng(0).normal(size=(200, 2))
    >>> ridge = Ridge.fit(["a", "b"], x, 3 * x[:, :1] + 1)
    >>> ridge.predict(np.array([[1.0, 5.0]])).round(1).tolist()
    [[4.0]]
    """

    names: tuple[str, ...]
    mean_P: NDArray[np.float64]
    scale_P: NDArray[np.float64]
    weights_PQ: NDArray[np.float64]
    bias_Q: NDArray[np.float64]
    shares_P: NDArray[np.float64]

    def first(self, targets: int) -> "Ridge":
        """The same for the first targets alone.

        Arguments
        ---------
        targets : int
            How many.

        Returns
        -------
        Ridge
            Its ``shares_P`` are those of all targets.
        """
        return replace(
            self,
            weights_PQ=self.weights_PQ[:, :targets],
            bias_Q=self.bias_Q[:targets],
        )

    @classmethod
    def fit(
        cls,
        names: Sequence[str],
        values_NP: NDArray[np.floating],
        targets_NQ: NDArray[np.floating],
    ) -> "Ridge":
        """Least squares with a penalty on the weights.

        Arguments
        ---------
        names : sequence of str
            The features.
        values_NP : array of shape (N, P)
            Their values.
        targets_NQ : array of shape (N, Q)
            What to predict.

        Returns
        -------
        Ridge
            With the penalty whose leave-one-out error is least, one for all
            targets.
        """
        return cls.fit_left_out(names, values_NP, targets_NQ)[0]

    @classmethod
    def fit_left_out(
        cls,
        names: Sequence[str],
        values_NP: NDArray[np.floating],
        targets_NQ: NDArray[np.floating],
    ) -> "tuple[Ridge, NDArray[np.float64]]":
        """As :meth:`fit`, with what each utterance is predicted by the others.

        Arguments
        ---------
        names : sequence of str
            The features.
        values_NP : array of shape (N, P)
            Their values.
        targets_NQ : array of shape (N, Q)
            What to predict.

        Returns
        -------
        ridge : Ridge
            The regression.
        left_out_NQ : array of shape (N, Q)
            Prediction for each utterance from a fit without it.
        """
        mean_P = values_NP.mean(0)
        scale_P = np.maximum(values_NP.std(0), _FLAT)
        inputs_NP = _standardised(values_NP, mean_P, scale_P)
        # cut features are no longer centred; the bias takes that up
        centre_P = inputs_NP.mean(0)
        bias_Q = targets_NQ.mean(0)
        weights_PQ, missed_NQ = _solve(
            inputs_NP - centre_P, targets_NQ - bias_Q
        )
        parts_NP = (inputs_NP - centre_P) * weights_PQ.mean(1)
        total_N = parts_NP.sum(1)
        power = max(float(total_N @ total_N), _FLAT)
        ridge = cls(
            tuple(names),
            mean_P,
            scale_P,
            weights_PQ,
            bias_Q - centre_P @ weights_PQ,
            parts_NP.T @ total_N / power,
        )
        return ridge, targets_NQ - missed_NQ

    def predict(self, values_NP: NDArray[np.floating]) -> NDArray[np.float64]:
        """Predict the targets.

        Arguments
        ---------
        values_NP : array of shape (N, P)
            Features in the order of ``names``.

        Returns
        -------
        array of shape (N, Q)
        """
        inputs_NP = _standardised(values_NP, self.mean_P, self.scale_P)
        return inputs_NP @ self.weights_PQ + self.bias_Q

    def shares(self) -> dict[str, float]:
        """Share of the predictions that each feature makes.

        Returns
        -------
        dict of str to float
        """
        return dict(zip(self.names, self.shares_P.tolist(), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """All of it as lists."""
        return {
            "names": list(self.names),
            "mean": self.mean_P.tolist(),
            "scale": self.scale_P.tolist(),
            "weights": self.weights_PQ.tolist(),
            "bias": self.bias_Q.tolist(),
            "shares": self.shares_P.tolist(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Ridge":
        """What :meth:`to_dict` gave.

        Arguments
        ---------
        data : dict
            Lists.

        Returns
        -------
        Ridge
        """
        keys = ("mean", "scale", "weights", "bias", "shares")
        arrays = [np.array(data[key], dtype=np.float64) for key in keys]
        if not data["names"]:  # lists of no rows have forgotten the columns
            arrays[2] = np.zeros((0, len(arrays[3])))
        return cls(tuple(data["names"]), *arrays)


def _standardised(
    values_NP: NDArray[np.floating],
    mean_P: NDArray[np.float64],
    scale_P: NDArray[np.float64],
) -> NDArray[np.float64]:
    inputs_NP = (values_NP - mean_P) / scale_P
    return np.minimum(np.maximum(inputs_NP, -_LIMIT), _LIMIT)


def _solve(
    inputs_NP: NDArray[np.float64], targets_NQ: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights and left-out residuals at the strength with the least leave-one-out error.

    With inputs U S V^T the fit of strength r is U D U^T y, D = S^2/(S^2 + r),
    and leaving utterance i out changes its residual to
    (y_i - fit_i) / (1 - h_i), h = diag(U D U^T) + 1/N (Allen's PRESS; the
    1/N is the bias).
    """
    count = len(inputs_NP)
    left_NP, sizes_P, right_PP = np.linalg.svd(inputs_NP, full_matrices=False)
    along_PQ = left_NP.T @ targets_NQ
    best, found = np.inf, None
    for strength in _STRENGTHS * count:
        kept_P = sizes_P**2 / (sizes_P**2 + strength)
        fitted_NQ = left_NP @ (kept_P[:, None] * along_PQ)
        leverage_N = (left_NP**2) @ kept_P + 1 / count
        missed_NQ = (targets_NQ - fitted_NQ) / (1 - leverage_N)[:, None]
        error = float((missed_NQ**2).sum())
        if error < best:
            best = error
            shrunk_P = sizes_P / (sizes_P**2 + strength)
            weights_PQ = right_PP.T @ (shrunk_P[:, None] * along_PQ)
            found = weights_PQ, missed_NQ
    assert found is not None
    return found
