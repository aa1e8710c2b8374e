"""The registries: what is there, what it declares, names and parameters.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria import (
    criterion,
    criterion_names,
    get_criterion,
    get_measure,
    measure,
    measure_all,
    measure_names,
)
from speechbrain_ee.exits.criteria.registry import Parameters
from speechbrain_ee.exits.criteria.view import ExitView
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.policy import first_exit
from speechbrain_ee.models.heads import ExitOutput

WANTED = {
    "fixed",
    "random",
    "entropy",
    "entropy_nats",
    "entropy_nonblank",
    "tsallis_mean",
    "tsallis_min",
    "max_prob",
    "max_prob_nonblank",
    "margin",
    "margin_nonblank",
    "token_quantile",
    "token_quantile_nonblank",
    "ctc_forward",
    "ctc_forward_per_frame",
    "hidden_cosine",
    "agreement",
    "patience_transcript",
    "patience_distribution",
}


def test_every_criterion_is_registered():
    assert set(criterion_names()) >= WANTED


@pytest.mark.parametrize("name", criterion_names())
def test_every_criterion_declares_itself(name):
    chosen = get_criterion(name)
    assert chosen.name == name
    assert chosen.formula and chosen.source
    assert chosen.baseline == (name in ("fixed", "random"))
    cost = chosen.macs(250, 32)
    assert cost == int(cost) >= 0
    # of arrays, element by element; and longer is never cheaper
    costs_N = chosen.macs(np.array([0, 250, 500]), 32)
    assert costs_N.tolist() == [0, cost, chosen.macs(500, 32)]
    assert 2 * cost <= chosen.macs(500, 32)
    if chosen.same_as:
        assert get_criterion(chosen.same_as).same_as is None


def test_costs():
    assert get_criterion("entropy").macs(250, 32) == 8000
    assert get_criterion("agreement").macs(250, 32) == 0
    # the measures that a criterion reads are charged
    waiting = get_criterion("patience_distribution:patience=3")
    assert waiting.macs(250, 32) == 3 * 8000
    assert get_criterion("ctc_forward").macs(250, 32) == (
        8000 + 2 * 250**2 + 3 * 250
    )


@pytest.mark.parametrize("look_up", [get_criterion, get_measure])
@pytest.mark.parametrize(
    "name, message",
    [
        ("entropi", "'entropi' is not known; valid .*entropy, entropy_nats"),
        ("", "'' is not known"),
        ("entropy:alpha=1", "no parameter 'alpha'.*entropy: none"),
        ("tsallis_min:alfa=1", "no parameter 'alfa'.*tsallis_min: alpha"),
        ("tsallis_min:", "no parameter ''"),
        ("tsallis_min:alpha=one", "alpha='one' must be a number from 0.01"),
        ("tsallis_min:alpha=nan", "alpha='nan' must be"),
        ("tsallis_min:alpha=0", "from 0.01 to 10 .default 0.333"),
        ("tsallis_min:alpha", "alpha='' must be"),
        ("tsallis_min:alpha=1,alpha=2", "alpha is given twice"),
        ("token_quantile:q=1.5", "from 0 to 1"),
    ],
)
def test_unknown_names_and_parameters(look_up, name, message):
    with pytest.raises(InputError, match=message):
        look_up(name)


def test_parameters_become_part_of_the_name():
    name = "tsallis_min:alpha=0.5"
    assert get_criterion(name).needs == (name,)
    probs_BTV = torch.tensor([[[0.1, 0.9], [0.4, 0.6]]])
    view = ExitView(ExitOutput(probs_BTV.log(), torch.tensor([2]), 2))
    values = measure_all(view, [name, "tsallis_min"])
    assert list(values) == [name, "tsallis_min"]
    assert values[name] != values["tsallis_min"]


def test_nothing_is_registered_twice():
    text = {"formula": "", "source": ""}
    with pytest.raises(ValueError, match="twice"):
        measure("entropy", **text)(lambda view: view)
    with pytest.raises(ValueError, match="twice"):
        criterion("fixed", **text)(lambda evidence: evidence)
    with pytest.raises(ValueError, match="alpha"):
        Parameters.of(lambda view, *, q=1.0: view, {"alpha": (0, 1)})


def test_measures_without_a_criterion():
    only = set(measure_names()) - set(criterion_names())
    assert only >= {f"cross_entropy_{lag}" for lag in (1, 2, 3, 4)}


def test_measures_wait_for_what_they_compare_with():
    probs_BTV = torch.tensor([[[0.1, 0.9], [0.4, 0.6]]])
    plain = ExitOutput(probs_BTV.log(), torch.tensor([2]), 2)
    hidden = ExitOutput(
        probs_BTV.log(), torch.tensor([2]), 2, hidden_BTD=torch.ones(1, 2, 3)
    )
    first = measure_all(ExitView(plain))
    assert "entropy" in first and "cross_entropy_1" not in first
    third = measure_all(ExitView(plain, [ExitView(plain)] * 2))
    assert "cross_entropy_2" in third and "cross_entropy_3" not in third
    assert "hidden_cosine" not in third
    assert "hidden_cosine" in measure_all(ExitView(hidden, [ExitView(hidden)]))


def table(rows, layers):
    return Evidence(np.array(layers), [f"utterance-{n}" for n in range(rows)])


def test_fixed():
    scores_NE = get_criterion("fixed").scores(table(4, [2, 4, 6]))
    for exit in (1, 2, 3):
        assert first_exit(scores_NE, exit).tolist() == [exit - 1] * 4


def test_random_is_uniform_and_independent():
    scores_NE = get_criterion("random").scores(table(4000, range(6)))
    assert 0 <= scores_NE.min() and scores_NE.max() < 1
    for column in scores_NE.T:
        # 5 standard deviations of the mean and of a tenth's share
        assert abs(column.mean() - 0.5) < 5 / np.sqrt(12 * 4000)
        shares = np.histogram(column, 10, (0, 1))[0] / 4000
        assert abs(shares - 0.1).max() < 5 * np.sqrt(0.09 / 4000)
    close = np.corrcoef(scores_NE.T) - np.eye(6)
    assert abs(close).max() < 5 / np.sqrt(4000)


def test_random_is_the_same_in_every_process(repository):
    code = (
        "import json\nimport numpy as np\n"
        "from speechbrain_ee.exits.criteria.combined import random\n"
        "from speechbrain_ee.exits.evidence import Evidence\n"
        "table = Evidence(np.array([2, 4]), ['u1', 'u\\u00e9'])\n"
        "print(json.dumps(random(table).tolist()))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    here = get_criterion("random").scores(
        Evidence(np.array([2, 4]), ["u1", "u\u00e9"])
    )
    assert json.loads(shown) == here.tolist()
