"""A selector as a file: the same scores, and every malformed kind named.

Authors
 * The speechbrain-ee contributors 2026
"""

import copy
import gzip
import json

import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.selector.learned import LearnedSelector
from speechbrain_ee.exits.selector.selector_file import (
    read_selector,
    write_selector,
)
from tests.exits.selector_trace import synthetic_trace


@pytest.fixture(scope="module")
def selector():
    return LearnedSelector.fit(synthetic_trace(60))


@pytest.fixture(scope="module")
def content(selector, tmp_path_factory):
    path = tmp_path_factory.mktemp("selector") / "selector.json.gz"
    write_selector(path, selector)
    return json.loads(gzip.decompress(path.read_bytes()))


@pytest.mark.parametrize("transcripts", [True, False])
@pytest.mark.parametrize("evidence", [True, False])
def test_round_trip(tmp_path, transcripts, evidence):
    if not (transcripts or evidence):
        pytest.skip("nothing to learn from")
    trace = synthetic_trace(60, 0, transcripts, evidence)
    selector = LearnedSelector.fit(trace)
    first, second = tmp_path / "a.json.gz", tmp_path / "b.json.gz"
    write_selector(first, selector)
    again = read_selector(first)
    scores_NE = selector.scores(trace.evidence)
    assert again.scores(trace.evidence).tolist() == scores_NE.tolist()
    assert again.explain() == selector.explain()
    write_selector(second, again)
    assert first.read_bytes() == second.read_bytes()


def test_explanation_is_written(selector, content):
    assert content["explanation"] == selector.explain()


def set_at(content, keys, value):
    """A copy with another value somewhere inside."""
    content = copy.deepcopy(content)
    *before, last = keys
    place = content
    for key in before:
        place = place[key]
    if value is KeyError:
        del place[last]
    else:
        place[last] = value
    return content


MISSING = KeyError
BROKEN = [
    (("schema",), "exit-selector/2", "exit-selector/2"),
    (("ridges",), MISSING, "ridges is missing"),
    (("exit_layers",), MISSING, "exit_layers is missing"),
    (("exit_layers",), [2, 4, 4, 8], "exit_layers"),
    (("exit_layers",), [0, 4, 6, 8], "exit_layers"),
    (("exit_layers",), [2, 4, 6.5, 8], "exit_layers"),
    (("exit_layers",), ["2", "4", "6", "8"], "exit_layers"),
    (("exit_layers",), 4, "exit_layers"),
    (("exit_layers",), [], "exit_layers"),
    (("exit_layers",), [2, 4, 6], "3 for 3 exits"),
    (("evidence",), "entropy", "evidence"),
    (("evidence",), [1], "evidence"),
    (("ridges",), [], "0 for 4 exits"),
    (("ridges",), None, "not iterable"),
    (("ridges", 0), [], "list"),
    (("ridges", 0, "names"), MISSING, "'names' is missing"),
    (("ridges", 0, "names", 0), "wrods", "wrods"),
    (("ridges", 0, "names", 0), 3, "names"),
    (("ridges", 0, "mean"), [0.0], "mean has the shape"),
    (("ridges", 0, "mean", 0), "zero", "zero"),
    (("ridges", 0, "mean", 0), None, "mean"),
    (("ridges", 0, "scale", 0), 0.0, "scale holds"),
    (("ridges", 0, "bias"), [0.0], "bias has the shape"),
    (("ridges", 0, "weights", 0), [0.0], "inhomogeneous"),
    (("ridges", 0, "weights"), [[0.0]], "weights has the shape"),
    (("ridges", 0, "shares"), [], "shares has the shape"),
    (("word_value",), None, "go together"),
    (("language_model",), None, "go together"),
    (("word_value",), [], "list"),
    (("word_value", "exits"), 3, "3 exits"),
    (("word_value", "mean"), [0.0], "size mismatch"),
    (("word_value", "scale"), [1.0], "scale has the shape"),
    (("word_value", "scale", 0), -1.0, "scale holds"),
    (("word_value", "members"), MISSING, "'members' is missing"),
    (("word_value", "members", 0), [], "list"),
    (("word_value", "members", 0, "0.bias"), MISSING, "0.bias"),
    (("word_value", "members", 0, "0.bias"), [0.0], "size mismatch"),
    (("word_value", "members", 0, "0.bias", 0), "x", "str"),
    (("language_model", "order"), 0, "order"),
    (("language_model", "words"), [], "words"),
]


@pytest.mark.parametrize("keys, value, message", BROKEN)
def test_malformed(tmp_path, content, keys, value, message):
    path = tmp_path / "selector.json.gz"
    broken = set_at(content, keys, value)
    path.write_bytes(gzip.compress(json.dumps(broken).encode(), 1))
    with pytest.raises(InputError, match=message) as caught:
        read_selector(path)
    assert str(path) in str(caught.value)
    assert "again" in str(caught.value)


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
@pytest.mark.parametrize(
    "keys",
    [("ridges", 1, "mean", 0), ("word_value", "members", 0, "2.bias", 0)],
)
def test_not_finite(tmp_path, content, keys, number):
    path = tmp_path / "selector.json.gz"
    text = json.dumps(set_at(content, keys, "HERE")).replace('"HERE"', number)
    path.write_bytes(gzip.compress(text.encode(), 1))
    with pytest.raises(InputError, match="not possible|no number"):
        read_selector(path)


def test_cut_or_not_there(tmp_path, selector):
    path = tmp_path / "selector.json.gz"
    with pytest.raises(InputError, match="no such file"):
        read_selector(path)
    write_selector(path, selector)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a whole file"):
        read_selector(path)
