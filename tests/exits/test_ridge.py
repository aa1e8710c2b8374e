"""Ridge regression against normal equations and leaving out by hand.

Axes: N utterances, P features, Q targets.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
import pytest

from speechbrain_ee.exits.selector import ridge as module
from speechbrain_ee.exits.selector.ridge import Ridge


def data(count=40, features=5, targets=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, features)) * [1, 5, 0.1, 2, 1][:features] + 3
    y = x[:, :targets] @ rng.normal(size=(targets, targets))
    return x, y + rng.normal(size=y.shape)


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


def standardised(x):
    return np.clip((x - x.mean(0)) / x.std(0), -6, 6)


@pytest.mark.parametrize("outlier", [0.0, 1e3])  # 1e3 is cut at 6 deviations
def test_normal_equations_at_the_best_strength(outlier):
    x, y = data(60)
    x[7, 1] += outlier
    names = [str(place) for place in range(5)]
    ridge, left_out_NQ = Ridge.fit_left_out(names, x, y)
    z = standardised(x)
    missed = []
    for strength in module._STRENGTHS * len(x):
        missed.append(((left_out_by_hand(z, y, strength) - y) ** 2).sum())
    best = module._STRENGTHS[np.argmin(missed)] * len(x)
    expected = np.column_stack([z, np.ones(len(x))]) @ by_hand(z, y, best)
    assert ridge.predict(x) == pytest.approx(expected, abs=1e-8)
    by_loop = left_out_by_hand(z, y, best)
    assert left_out_NQ == pytest.approx(by_loop, abs=1e-8)


def test_noise_is_shrunk_away_and_signal_kept():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(80, 30))
    noise = Ridge.fit([str(n) for n in range(30)], x, rng.normal(size=(80, 1)))
    assert noise.predict(x).std() < 0.4
    signal = Ridge.fit([str(n) for n in range(30)], x, 5 * x[:, :1])
    assert signal.predict(x) == pytest.approx(5 * x[:, :1], abs=0.3)


def test_units_and_shifts_of_features_change_nothing():
    x, y = data()
    names = list("abcde")
    plain = Ridge.fit(names, x, y)
    scales = np.array([1e3, 1e-3, 7, 1, 2])
    scaled = Ridge.fit(names, x * scales + 5, y)
    assert scaled.predict(x * scales + 5) == pytest.approx(plain.predict(x))


def test_one_utterance_as_in_a_batch():
    x, y = data()
    ridge = Ridge.fit(list("abcde"), x, y)
    alone = np.concatenate([ridge.predict(row[None]) for row in x])
    assert alone == pytest.approx(ridge.predict(x), abs=1e-12)


def test_shares():
    x, y = data()
    shares = Ridge.fit(list("abcde"), x, y).shares()
    assert list(shares) == list("abcde")
    assert sum(shares.values()) == pytest.approx(1)
    z = np.random.default_rng(0).normal(size=(200, 2))
    only = Ridge.fit(["used", "unused"], z, z[:, :1]).shares()
    assert only["used"] > 0.99


def test_constant_feature_and_constant_target():
    x, y = data()
    x[:, 2] = 0.1
    ridge = Ridge.fit(list("abcde"), x, y)
    far = x.copy()
    far[:, 2] = 50
    assert ridge.predict(far) == pytest.approx(ridge.predict(x), abs=1e-6)
    flat = Ridge.fit(list("abcde"), x, np.full((40, 2), 0.5))
    assert flat.predict(x) == pytest.approx(0.5)
    assert sum(flat.shares().values()) == 0


def test_without_features_it_predicts_means():
    _, y = data()
    ridge, left_out_NQ = Ridge.fit_left_out((), np.zeros((40, 0)), y)
    for each in (ridge, Ridge.from_dict(ridge.to_dict())):
        means = each.predict(np.zeros((2, 0)))
        assert means == pytest.approx(np.tile(y.mean(0), (2, 1)))
    others = (y.sum(0) - y) / 39
    assert left_out_NQ == pytest.approx(others)


def test_more_features_than_utterances():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(10, 25))
    ridge = Ridge.fit([str(n) for n in range(25)], x, x[:, :1])
    assert np.isfinite(ridge.predict(x)).all()


def test_as_plain_values_and_back():
    x, y = data()
    ridge = Ridge.fit(list("abcde"), x, y)
    again = Ridge.from_dict(ridge.to_dict())
    assert again.predict(x).tolist() == ridge.predict(x).tolist()
    assert again.shares() == ridge.shares()
