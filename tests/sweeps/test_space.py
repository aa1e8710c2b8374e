"""What is searched, and which values the points have.

Authors
 * The speechbrain-ee contributors 2026
"""

import itertools
import math
from collections import Counter

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechbrain_ee.errors import InputError
from speechbrain_ee.sweeps.sampling import check_sampler, draw
from speechbrain_ee.sweeps.space import Parameter

SPACE = (
    Parameter.parse("lr", {"low": 1e-5, "high": 0.1, "log": True}),
    Parameter.parse("depth", {"low": 2, "high": 9}),
    Parameter.parse("exits", {"choices": [[2, 4], [4], None, {"a": 1}]}),
    Parameter.parse("drop", {"low": 0.0, "high": 0.3, "step": 0.1}),
)
ENTRIES = (
    {"low": 1e-5, "high": 0.123456789, "log": True},
    {"low": -2.0, "high": 3.7},
    {"low": 0.0, "high": 0.35, "step": 0.1},
    {"low": 1, "high": 300, "log": True},
    {"low": -3, "high": 11, "step": 4},
    {"choices": [[1], {"a": None}, "x", 2.5, None]},
)


@given(st.sampled_from(ENTRIES), st.floats(0, 1, exclude_max=True))
def test_every_value_is_one_that_optuna_accepts_and_gives_back(entry, unit):
    parameter = Parameter.parse("key", entry)
    value = parameter.value(unit)
    shown = parameter.shown(value)
    distribution = parameter.distribution
    inner = distribution.to_internal_repr(shown)
    assert distribution._contains(inner)
    assert parameter.meant(distribution.to_external_repr(inner)) == value


@pytest.mark.parametrize("entry", ENTRIES)
def test_both_ends_of_the_interval_are_reached(entry):
    parameter = Parameter.parse("key", entry)
    first, last = parameter.value(0.0), parameter.value(1 - 1e-12)
    if "choices" in entry:
        assert [first, last] == [entry["choices"][0], entry["choices"][-1]]
        return
    assert first == entry["low"]
    step = entry.get("step")
    if step is None:
        assert last == pytest.approx(entry["high"], rel=1e-5)
    else:
        assert 0 <= entry["high"] - last < step


def test_int_on_a_log_scale_gives_each_octave_its_share():
    parameter = Parameter.parse("k", {"low": 1, "high": 15, "log": True})
    drawn = [parameter.value((n + 0.5) / 4000) for n in range(4000)]
    octaves = Counter(int(math.log2(value)) for value in drawn)
    assert octaves == dict.fromkeys(range(4), 1000)


@pytest.mark.parametrize("sampler", ["random", "qmc", "grid"])
def test_points_depend_on_seed_and_number_alone(sampler):
    study = optuna.create_study()
    space = SPACE[1:] if sampler == "grid" else SPACE
    points = range(20)
    forth = [draw(sampler, 5, n, space, study) for n in points]
    back = [draw(sampler, 5, n, space, study) for n in reversed(points)]
    assert forth == back[::-1]
    if sampler != "grid":
        assert forth != [draw(sampler, 6, n, space, study) for n in points]
        assert len({point["lr"] for point in forth}) == 20


def test_grid_is_the_whole_product():
    space = SPACE[1:]
    size = check_sampler("grid", space, None)
    study = optuna.create_study()
    drawn = [
        tuple(draw("grid", 0, n, space, study).values()) for n in range(size)
    ]
    assert size == 8 * 4 * 4
    assert drawn == list(itertools.product(*(each.values for each in space)))


def test_qmc_covers_more_evenly_than_chance():
    study = optuna.create_study()
    drawn = [draw("qmc", 1, n, SPACE[1:2], study)["depth"] for n in range(32)]
    assert Counter(drawn) == dict.fromkeys(range(2, 10), 4)


def test_tpe_goes_where_it_was_good():
    space = (Parameter.parse("x", {"low": 0.0, "high": 1.0}),)
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="a")
    points = []
    for point in range(40):
        fresh = optuna.load_study(study_name="a", storage=storage)
        x = draw("tpe", 0, point, space, fresh)["x"]
        points.append(x)
        study.add_trial(
            optuna.trial.create_trial(
                params={"x": x},
                distributions={"x": space[0].distribution},
                value=(x - 0.3) ** 2,
            )
        )
    late = points[20:]
    # chance alone would have a fifth of them there
    assert sum(abs(x - 0.3) < 0.1 for x in late) > 2 * len(late) / 5
    fresh = optuna.load_study(study_name="a", storage=storage)
    again = [draw("tpe", 0, 40, space, fresh) for _ in range(2)]
    assert again[0] == again[1]


@pytest.mark.parametrize(
    "entry, named",
    [
        (3, "no mapping"),
        ({"low": 1, "high": 1}, "low must be below high"),
        ({"low": 0, "high": 1.0, "log": True}, "positive where log"),
        ({"low": 1, "high": 9, "log": True, "step": 2}, "exclude each other"),
        ({"low": 1, "high": "9"}, "high: '9' is no number"),
        ({"low": 1, "high": 9, "max": 3}, "'max' is no field"),
        ({"low": 1, "high": 9, "step": 0}, "step must be positive"),
        ({"low": 1.5, "high": 9, "kind": "int"}, "low: 1.5 is not for"),
        ({"kind": "normal"}, "float, int, categorical, together"),
        ({"choices": []}, "at least one"),
        ({"choices": [[1], [1]]}, "there twice"),
        ({"kind": "together", "choices": [1]}, "are mappings"),
        ({"low": 1, "high": float("inf")}, "is not for"),
        ({"low": 1, "high": 2, "log": 1}, "neither true nor false"),
    ],
)
def test_what_cannot_be_searched_is_told(entry, named):
    with pytest.raises(InputError, match="space, key") as told:
        Parameter.parse("key", entry)
    assert named in str(told.value)


@pytest.mark.parametrize(
    "sampler, trials, named",
    [
        ("best", 3, "random, qmc, grid, tpe"),
        ("qmc", None, "trials: missing"),
        ("grid", None, "values that can be counted"),
    ],
)
def test_samplers_that_cannot_work_are_told(sampler, trials, named):
    with pytest.raises(InputError, match=named):
        check_sampler(sampler, SPACE, trials)
