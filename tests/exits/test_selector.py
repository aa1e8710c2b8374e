"""A learned selector where the value of going on is known, and its file.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import copy
import gzip
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.policy import at_choice, choices_NT
from speechbrain_ee.exits.selector.selector import LearnedSelector
from speechbrain_ee.exits.selector.selector_file import (
    read_selector,
    write_selector,
)
from speechbrain_ee.exits.selector.value import value_words
from speechbrain_ee.exits.selector.words import WordReader
from speechbrain_ee.exits.trace import (
    ExitRecord,
    Trace,
    TraceHeader,
    UtteranceRecord,
    cross_fitted,
)
from speechbrain_ee.exits.trace_file import read_trace
from tests.exits.selector_trace import synthetic_trace, true_scores


@pytest.fixture(scope="module")
def dev():
    return synthetic_trace()


@pytest.fixture(scope="module")
def other():
    return synthetic_trace(80, seed=1)


@pytest.fixture(scope="module")
def selector(dev):
    return LearnedSelector.fit(dev)


def correlation(first, second):
    return np.corrcoef(first.ravel(), second.ravel())[0, 1]


def fewest_layers(trace, scores_NE, errors):
    """Layers per utterance at the most errors allowed, over thresholds."""
    limits = [*np.unique(scores_NE[:, :-1]), np.inf]
    choice_NT = choices_NT(scores_NE, limits)
    errors_T = at_choice(trace.errors_NE, choice_NT).sum(axis=0)
    layers_T = trace.layers_E[choice_NT].mean(axis=0)
    return layers_T[errors_T <= errors].min()


def test_learns_the_value_of_going_on(selector, other):
    scores_NE = selector.scores(other.evidence)
    wanted_NE = true_scores(other)
    for exit_ in range(3):
        assert correlation(scores_NE[:, exit_], wanted_NE[:, exit_]) > 0.7
    assert (scores_NE[:, -1] == 0).all()
    # not only the order: the values are errors per layer
    assert scores_NE[:, 0].mean() == pytest.approx(
        wanted_NE[:, 0].mean(), abs=0.2
    )


def test_needs_fewer_layers_than_entropy(selector, other):
    entropy_NE = get_criterion("entropy").scores(other.evidence)
    scores_NE = selector.scores(other.evidence)
    for factor in (1.02, 1.1, 1.3):
        most = other.errors_NE[:, -1].sum() * factor
        own = fewest_layers(other, scores_NE, most)
        assert own < fewest_layers(other, entropy_NE, most) - 0.2


def test_later_exits_and_other_utterances_change_nothing(selector, other):
    whole_NE = selector.scores(other.evidence)
    for exits in (1, 2, 3, 4):
        part_NE = selector.scores(other.evidence.upto(exits))
        assert part_NE == pytest.approx(whole_NE[:, :exits], abs=1e-6)
    for row in range(0, 80, 7):
        alone_NE = selector.scores(other.evidence.select([row]))
        assert alone_NE == pytest.approx(whole_NE[[row]], abs=1e-6)


def test_score_at_an_exit_with_a_kept_reader(selector, other):
    whole_NE = selector.scores(other.evidence)
    reader = WordReader(selector.language_model)
    stay = np.arange(80)
    for exit in (1, 2, 3, 4):
        part = other.evidence.select(stay).upto(exit)
        for given in (reader, None):
            scores_N = selector.score_at(part, exit, given)
            expected_N = whole_NE[stay, exit - 1]
            assert scores_N == pytest.approx(expected_N, abs=1e-6)
        stay = stay[exit % 2 :: 2]  # utterances leave
    early_N = selector.score_at(other.evidence, 2)
    assert early_N == pytest.approx(whole_NE[:, 1], abs=1e-6)
    with pytest.raises(ValueError, match="exit 5"):
        selector.score_at(other.evidence, 5)


def test_a_kept_reader_remembers_for_one_selector(selector, dev, other):
    reader = WordReader(selector.language_model)
    twin = LearnedSelector.fit(dev, seed=1)
    with pytest.raises(ValueError, match="another language model"):
        twin.score_at(other.evidence, 2, reader)
    twin = replace(twin, language_model=selector.language_model)
    evidence = other.evidence.upto(2)
    for each in (selector, twin, selector, selector):
        found_N = each.score_at(evidence, 2, reader)
        expected_N = each.scores(evidence)[:, 1]
        assert found_N == pytest.approx(expected_N, abs=1e-6)
    assert (twin.scores(evidence) != selector.scores(evidence))[:, 1].any()
    # another entropy or another history is another utterance
    entropy_NE = evidence.column("entropy") + [0.1, 0.0]
    changed = evidence.with_columns({"entropy": entropy_NE})
    hyps = [[second, first] for first, second in evidence.hyps]
    for part in (changed, replace(evidence, hyps=hyps)):
        found_N = selector.score_at(part, 2, reader)
        expected_N = selector.score_at(part, 2)
        assert found_N == pytest.approx(expected_N, abs=1e-6)


def test_the_exit_before_is_not_valued_again(selector, other, monkeypatch):
    reader, evidence = WordReader(selector.language_model), other.evidence
    selector.score_at(evidence.upto(1), 1, reader)
    exits = []
    value = type(selector.word_value)
    monkeypatch.setattr(
        value,
        "predict",
        lambda self, table, predict=value.predict: (
            exits.append({*table.exit_M.tolist()}) or predict(self, table)
        ),
    )
    for _ in range(2):
        selector.score_at(evidence.upto(2), 2, reader)
        assert exits == [{1}]


def test_same_seed_same_bytes_and_callers_randomness_stays(
    dev, selector, tmp_path
):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    again = LearnedSelector.fit(dev)
    assert torch.equal(torch.get_rng_state(), state)
    files = [tmp_path / "a.json.gz", tmp_path / "b.json.gz"]
    for path, each in zip(files, (selector, again)):
        write_selector(path, each)
    assert files[0].read_bytes() == files[1].read_bytes()


def read_again(selector, path):
    """As its file has it, whose bytes are those of what was read."""
    write_selector(path, selector)
    before = path.read_bytes()
    again = read_selector(path)
    write_selector(path, again)
    assert path.read_bytes() == before
    assert again.explain() == selector.explain()
    assert json.loads(gzip.decompress(before))["explanation"] == again.explain()
    return again


def test_from_errors_and_evidence_alone(other, tmp_path):
    learned = LearnedSelector.fit(synthetic_trace(transcripts=False))
    assert learned.word_value is None
    scores_NE = learned.scores(other.evidence)  # transcripts are left alone
    again = read_again(learned, tmp_path / "s.json.gz")
    assert again.scores(other.evidence).tolist() == scores_NE.tolist()
    assert correlation(scores_NE[:, 0], true_scores(other)[:, 0]) > 0.5
    assert learned.explain()["frames"] == pytest.approx(1)


def test_from_transcripts_alone(other, tmp_path):
    learned = LearnedSelector.fit(synthetic_trace(evidence=False))
    assert learned.evidence_names == ()
    bare = replace(other.evidence, values={})
    scores_NE = learned.scores(bare)
    assert correlation(scores_NE[:, 0], true_scores(other)[:, 0]) > 0.7
    # an entropy that was not there in training changes nothing
    again = read_again(learned, tmp_path / "s.json.gz")
    assert again.scores(other.evidence).tolist() == scores_NE.tolist()
    assert learned.explain()["frames"] == 0


def test_what_is_missing_or_other(selector, other):
    evidence = other.evidence
    with pytest.raises(InputError, match="transcripts"):
        selector.scores(replace(evidence, hyps=None))
    with pytest.raises(InputError, match="entropy"):
        selector.scores(replace(evidence, values={}))
    for layers in ([2, 4, 6, 9], [2, 4, 6, 8, 10]):
        with pytest.raises(InputError, match="train one for this model"):
            selector.scores(replace(evidence, layers_E=np.array(layers)))
    missing = evidence.column("entropy").copy()
    missing[3, 1] = np.nan
    with pytest.raises(InputError, match="frames entropy 0"):
        selector.scores(replace(evidence, values={"entropy": missing}))


def test_too_little_to_learn_from(dev):
    with pytest.raises(InputError, match="19 utterances"):
        LearnedSelector.fit(dev.select(range(19)))
    bare = synthetic_trace(30, transcripts=False, evidence=False)
    with pytest.raises(InputError, match="evidence none"):
        LearnedSelector.fit(bare)


def test_one_speaker_and_empty_transcripts(dev):
    records = [replace(r, id=f"rec-{n}") for n, r in enumerate(dev.records)]
    alone = Trace(dev.header, tuple(records[:60]))
    assert np.isfinite(LearnedSelector.fit(alone).scores(dev.evidence)).all()
    exits = tuple(ExitRecord(n, "", None) for n in dev.header.exit_layers)
    silent = [replace(r, exits=exits) for r in dev.records[:30]]
    learned = LearnedSelector.fit(Trace(dev.header, tuple(silent)))
    assert learned.scores(alone.evidence) == pytest.approx(0)


def test_explains_itself(selector, dev):
    shares = selector.explain()
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert shares["words"] + shares["spelling"] > 0.5
    # the third exit is as good as the last: nothing to learn there
    records = [
        replace(r, exits=(*r.exits[:3], replace(r.exits[2], layer=8)))
        for r in dev.records[:60]
    ]
    learned = LearnedSelector.fit(Trace(dev.header, tuple(records)))
    assert sum(learned.explain().values()) == pytest.approx(1)


def test_fitted_evidence_teaches_no_other_fit(dev, selector):
    answers = -dev.errors_NE.astype(float)
    for name in ("learned", "combination", "plausibility", "unseen_words"):
        dev = dev.with_evidence(name, answers)
    again = LearnedSelector.fit(dev)
    assert again.evidence_names == ("entropy",)
    expected = selector.scores(dev.evidence).tolist()
    assert again.scores(dev.evidence).tolist() == expected


def noise_trace(seed):
    """Transcripts and evidence have nothing to do with what was said."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice([*"abcde"], 4)) for _ in range(60)]

    def text():
        return " ".join(rng.choice(words, 5))

    records = []
    for row in range(200):
        ref = text()
        exits = []
        for layer in (2, 4, 6):
            right = rng.random(5) < 0.5
            said = zip(ref.split(), text().split(), right)
            heard = " ".join(w if is_right else o for w, o, is_right in said)
            exits.append(
                ExitRecord(layer, heard, None, {"entropy": rng.random()})
            )
        name = f"s{row % 20}"
        records.append(
            UtteranceRecord(
                f"{name}-{row}", "dev", ref, tuple(exits), speaker=name
            )
        )
    header = TraceHeader("noise", "greedy", (2, 4, 6))
    return Trace(header, tuple(records))


def test_chance_is_not_learned():
    left_out, crossed = [], []
    for seed in range(3):
        trace = noise_trace(seed)
        gains_N = trace.errors_NE[:, 0] - trace.errors_NE[:, -1]
        _, left_out_NE = LearnedSelector.fit_left_out(trace)
        crossed_NE = cross_fitted(
            trace, lambda part: LearnedSelector.fit(part).scores, 2
        )
        left_out.append(correlation(-left_out_NE[:, 0], gains_N))
        crossed.append(correlation(-crossed_NE[:, 0], gains_N))
    # whoever has seen the answers correlates with them; the mean of all
    # others is below the own value where that is high
    assert abs(np.mean(crossed)) < 0.15
    assert -0.5 < np.mean(left_out) < 0.15


def test_no_network_knows_what_its_own_utterances_said(dev):
    texts = [record.ref for record in dev.records]
    own = [n for n, name in enumerate(dev.ids) if name.startswith("s7-")]
    records = list(dev.records)
    for row in own:
        records[row] = replace(records[row], ref="something else was said")
    other = Trace(dev.header, tuple(records))
    before_NEE, after_NEE = (
        value_words(trace, texts, False, seed=0)[-1] for trace in (dev, other)
    )
    assert after_NEE[own].tolist() == before_NEE[own].tolist()
    assert after_NEE.tolist() != before_NEE.tolist()


def test_left_out_scores_are_as_good_as_on_other_utterances(dev, other):
    selector, left_out_NE = LearnedSelector.fit_left_out(dev)
    here = correlation(left_out_NE[:, 0], true_scores(dev)[:, 0])
    there = correlation(
        selector.scores(other.evidence)[:, 0], true_scores(other)[:, 0]
    )
    assert here == pytest.approx(there, abs=0.1)


@pytest.mark.slow
def test_real_exits(shared_folder):
    path = shared_folder / "traces" / "wav2vec2-ee.greedy.jsonl.gz"
    trace = read_trace(path)
    clean, test = trace.subset("test-clean"), trace.subset("test-other")
    learned = LearnedSelector.fit(clean)
    most = 1.05 * test.errors_NE[:, -1].sum()
    scores_NE = learned.scores(test.evidence).round(2)
    entropy_NE = get_criterion("entropy").scores(test.evidence).round(4)
    own = fewest_layers(test, scores_NE, most)
    assert own < fewest_layers(test, entropy_NE, most) - 0.2


# a place in the file, what stands there instead (None: nothing) and what is
# said of it
BROKEN = [
    ("schema", "exit-selector/2", "valid: exit-selector/1"),
    ("ridges", None, "ridges: missing"),
    ("exit_layers", None, "exit_layers: missing"),
    ("exit_layers", [2, 4, 4, 8], "exit_layers"),
    ("exit_layers", [0, 4, 6, 8], "exit_layers"),
    ("exit_layers", [2, 4, 6.5, 8], "exit_layers"),
    ("exit_layers", ["2", "4", "6", "8"], "exit_layers"),
    ("exit_layers", [], "exit_layers"),
    ("exit_layers", [2, 4, 6], "of 3 exits"),
    ("evidence", "entropy", "evidence"),
    ("evidence", [1], "evidence"),
    ("ridges", [], "of 4 exits"),
    ("ridges/0", [], r"ridges\[0\]"),
    ("ridges/0/names", None, "names: missing"),
    ("ridges/0/names/0", "wrods", "wrods"),
    ("ridges/0/names/0", 3, "names"),
    ("ridges/0/mean", [0.0], "differ in length"),
    ("ridges/0/mean/0", "zero", "zero"),
    ("ridges/0/scale/0", 0.0, r"scale\[0\]"),
    ("ridges/0/bias", [0.0], "differ in length"),
    ("ridges/0/weights/0", [0.0], "differ in length"),
    ("ridges/0/weights", [[0.0]], "differ in length"),
    ("ridges/0/shares", [], "differ in length"),
    ("ridges/1/mean/0", float("nan"), "no number|not finite"),
    ("ridges/1/mean/0", float("-inf"), "no number|not finite"),
    ("word_value", "null", "go together"),
    ("language_model", "null", "go together"),
    ("word_value", [], "word_value"),
    ("word_value/exits", 3, "a network of"),
    ("word_value/mean", [0.0], "22 numbers"),
    ("word_value/scale/0", -1.0, r"scale\[0\]"),
    ("word_value/members", None, "members: missing"),
    ("word_value/members/0", [], r"members\[0\]"),
    ("word_value/members/0/0.bias", None, "a network of"),
    ("word_value/members/0/0.bias", [0.0], "a network of"),
    ("word_value/members/0/0.bias/0", "x", "'x'"),
    ("word_value/members/0/2.bias/0", 1e300, "1e\\+300"),
    ("steps", [{}], "steps"),
    ("steps/0", {"entropy": [1, 1]}, "steps"),
    ("language_model/order", 0, "order"),
    ("language_model/words", [], "words"),
]


@pytest.fixture(scope="module")
def content(selector, tmp_path_factory):
    path = tmp_path_factory.mktemp("selector") / "selector.json.gz"
    write_selector(path, selector)
    return json.loads(gzip.decompress(path.read_bytes())) | {"steps": [{}] * 3}


@pytest.mark.parametrize("place, value, message", BROKEN)
def test_malformed_files(tmp_path, content, place, value, message):
    path = tmp_path / "selector.json.gz"
    keys = [int(n) if n.isdecimal() else n for n in place.split("/")]
    broken = inner = copy.deepcopy(content)
    *outer, key = keys
    for each in outer:
        inner = inner[each]
    if value is None:
        del inner[key]
    else:
        inner[key] = None if value == "null" else value
    path.write_bytes(gzip.compress(json.dumps(broken).encode(), 1))
    with pytest.raises(InputError, match=message) as caught:
        read_selector(path)
    assert str(path) in str(caught.value)
    assert "again" in str(caught.value)


def test_files_that_are_cut_or_not_there(tmp_path, selector):
    path = tmp_path / "selector.json.gz"
    with pytest.raises(InputError, match="no such file"):
        read_selector(path)
    write_selector(path, selector)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a whole file"):
        read_selector(path)
