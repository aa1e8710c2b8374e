"""Ridge regression against normal equations and leaving out by hand.

Axes: N utterances, P features, Q targets.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
import pytest

from speechbrain_ee.exits.selector.selector import Ridge

STRENGTHS = np.geomspace(0.01, 10.0, 13)


def data(count=40, features=5, targets=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, features)) * [1, 5, 0.1, 2, 1][:features] + 3
    y = x[:, :targets] @ rng.normal(size=(targets, targets))
    return x, y + rng.normal(size=y.shape)


def names(x):
    return [f"frames {place}" for place in range(x.shape[1])]


def fit(x, y):
    return Ridge.fit(names(x), x, y)[0]


def by_hand(x, y, strength):
    """Penalised normal equations with a free bias, on given inputs."""
    extended = np.column_stack([x, np.ones(len(x))])
    penalty = strength * np.eye(extended.shape[1])
    penalty[-1, -1] = 0
    return np.linalg.solve(extended.T @ extended + penalty, extended.T @ y)


def left_out_by_hand(x, y, strength):
    rows = np.arange(len(x))
    predicted = []
    for row in rows:
        weights = by_hand(x[rows != row], y[rows != row], strength)
        predicted.append(np.append(x[row], 1) @ weights)
    return np.array(predicted)


@pytest.mark.parametrize("outlier", [0.0, 1e3])  # 1e3 is cut at 6 deviations
def test_normal_equations_at_the_best_strength(outlier):
    x, y = data(60)
    x[7, 1] += outlier
    ridge, left_out_NQ = Ridge.fit(names(x), x, y)
    z = np.clip((x - x.mean(0)) / x.std(0), -6, 6)
    left_out = [left_out_by_hand(z, y, s * len(x)) for s in STRENGTHS]
    best = np.argmin([((each - y) ** 2).sum() for each in left_out])
    weights = by_hand(z, y, STRENGTHS[best] * len(x))
    expected = np.column_stack([z, np.ones(len(x))]) @ weights
    assert ridge.predict(x) == pytest.approx(expected, abs=1e-8)
    assert left_out_NQ == pytest.approx(left_out[best], abs=1e-8)
    alone = np.concatenate([ridge.predict(row[None]) for row in x])
    assert alone == pytest.approx(ridge.predict(x), abs=1e-12)


def test_noise_is_shrunk_away_and_signal_kept():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(80, 30))
    assert fit(x, rng.normal(size=(80, 1))).predict(x).std() < 0.4
    signal = fit(x, 5 * x[:, :1]).predict(x)
    assert signal == pytest.approx(5 * x[:, :1], abs=0.3)
    few = x[:10]
    assert np.isfinite(fit(few, few[:, :1]).predict(x)).all()


def test_units_and_shifts_of_features_change_nothing():
    x, y = data()
    scaled = x * np.array([1e3, 1e-3, 7, 1, 2]) + 5
    expected = fit(x, y).predict(x)
    assert fit(scaled, y).predict(scaled) == pytest.approx(expected)


def test_shares():
    x, y = data()
    assert sum(fit(x, y).shares) == pytest.approx(1)
    z = np.random.default_rng(0).normal(size=(200, 2))
    assert fit(z, z[:, :1]).shares[0] > 0.99


def test_constant_feature_and_constant_target():
    x, y = data()
    x[:, 2] = 0.1
    far = x.copy()
    far[:, 2] = 50
    ridge = fit(x, y)
    assert ridge.predict(far) == pytest.approx(ridge.predict(x), abs=1e-6)
    flat = fit(x, np.full((40, 2), 0.5))
    assert flat.predict(x) == pytest.approx(0.5)
    assert sum(flat.shares) == 0


def test_without_features_it_predicts_means():
    _, y = data()
    ridge, left_out_NQ = Ridge.fit((), np.zeros((40, 0)), y)
    means = ridge.predict(np.zeros((2, 0)))
    assert means == pytest.approx(np.tile(y.mean(0), (2, 1)))
    assert left_out_NQ == pytest.approx((y.sum(0) - y) / 39)
