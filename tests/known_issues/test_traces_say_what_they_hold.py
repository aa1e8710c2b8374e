"""A trace says what it lacks, prices what it has by its model, stands alone.

One NaN in one utterance lost a whole evaluation; a measure that was left out
was named nowhere; the selector read other evidence if a user's criteria were
imported; two criteria were charged for a model that nobody had. Evaluation
files opened in append mode: a second run then doubles every utterance, and the
error rate stays plausible.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.cost import criterion_macs
from speechbrain_ee.exits.criteria import get_criterion, measure, registry
from speechbrain_ee.exits.selector.features import usable_evidence
from speechbrain_ee.exits.trace_file import read_trace, write_trace
from tests.exits.selector_trace import synthetic_trace
from tests.helpers import tiny_brain, tone_dataset

LOADER = {"batch_size": 3}


@pytest.fixture
def own():
    """Measures of a user's own: one that is NaN once, one that comes late."""
    text = {"formula": "f", "source": "s", "higher_is_ready": True}
    names = ("own_fragile", "own_late")

    @measure("own_fragile", **text)
    def fragile(view):
        values_B = view.output.lengths_B.float()
        return torch.where(values_B == values_B.max(), torch.nan, values_B)

    @measure("own_late", **text)
    def late(view):
        value = 1.0 if view.earlier else torch.nan
        return torch.full(view.output.lengths_B.shape, value)

    yield names
    for name in names:
        registry._MEASURES.pop(name)
        registry._CRITERIA.pop(name)


def untrained(folder, **options):
    """A Brain that tests its weights as they are."""
    (folder / "save").mkdir()
    options = {"save_folder": str(folder / "save"), **options}
    return tiny_brain(folder, average_checkpoints=0, **options)


def test_what_is_left_out_is_named_in_the_trace_and_once_aloud(
    own, tmp_path, caplog
):
    brain = untrained(tmp_path)
    brain.evaluate_exits("one", tone_dataset(4), LOADER)
    brain.evaluate_exits("two", tone_dataset(4, seed=1), LOADER)
    trace = read_trace(tmp_path / "traces/two.jsonl.gz")
    assert {*trace.header.left_out} == {"own_fragile"}
    assert "nan for utterance 'utt" in trace.header.left_out["own_fragile"]
    assert np.isnan(trace.evidence_NE("own_late")[:, 0]).all()
    assert (trace.evidence_NE("own_late")[:, 1:] == 1).all()
    assert "entropy" in trace.evidence_names
    assert caplog.text.count("'own_fragile' is left out") == 1


def test_a_selection_that_was_not_learned_is_named(tmp_path):
    brain = untrained(tmp_path, exit_budget=None)
    brain.learn_selection("dev", tone_dataset(3), LOADER, ["a b"])
    brain.evaluate_exits("test", tone_dataset(3, seed=1), LOADER)
    for name in ("dev", "test"):
        trace = read_trace(tmp_path / f"traces/{name}.jsonl.gz")
        why = trace.header.left_out["learned"]
        assert "plausibility" in trace.header.left_out
        assert why.startswith("3 utterances with the evidence entropy")


def test_headers_of_before_are_read_and_wrong_ones_are_not(tmp_path):
    trace = synthetic_trace(3)
    path = tmp_path / "trace.jsonl"
    write_trace(path, trace.header, trace.records)
    assert "left_out" not in path.read_text("utf-8")
    assert read_trace(path).header == trace.header
    header = replace(trace.header, width=8, left_out={"mine": "costly"})
    write_trace(path, header, trace.records)
    assert read_trace(path).header == header
    for field in ({"left_out": {"mine": 1}}, {"width": -1}):
        with pytest.raises(InputError, match=next(iter(field))):
            write_trace(path, replace(header, **field), trace.records)


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_a_second_trace_replaces_the_first_and_is_not_appended(tmp_path, name):
    once, twice = tmp_path / "once" / name, tmp_path / "twice" / name
    trace = synthetic_trace(5)
    write_trace(once, trace.header, trace.records[:3])
    write_trace(twice, trace.header, trace.records)
    write_trace(twice, trace.header, trace.records[:3])
    assert twice.read_bytes() == once.read_bytes()
    once.write_bytes(once.read_bytes() * 2)  # the second header betrays it
    with pytest.raises(InputError, match="line 5, field "):
        read_trace(once)
    lines = tmp_path / "lines.jsonl"
    write_trace(lines, trace.header, trace.records[:3])
    with open(lines, "ab") as stream:  # without its header, the names do
        stream.write(lines.read_bytes().split(b"\n", 1)[1])
    with pytest.raises(InputError, match="line 5, field id.*line 2"):
        read_trace(lines)


def broken_tones(count):
    """Tones, the second of which holds one sample that is no number."""
    data = tone_dataset(count)
    data.data["utt1"]["sig"] = data.data["utt1"]["sig"].clone()
    data.data["utt1"]["sig"][900] = torch.nan
    return data


@pytest.mark.parametrize("decodings", [["ctc_greedy"], ["ctc_beam"]])
def test_an_utterance_of_nan_loses_nothing_else(tmp_path, caplog, decodings):
    """It counts as not recognised, and never as ready; the rest is as ever."""
    brain = untrained(tmp_path, decodings=decodings)
    brain.evaluate_exits("whole", tone_dataset(4), LOADER)
    whole = read_trace(tmp_path / "traces/whole.jsonl.gz")
    brain.evaluate_exits("tones", broken_tones(4), LOADER)
    trace = read_trace(tmp_path / "traces/tones.jsonl.gz")
    assert "tones: for 1 of 4 utterances the model gives NaN" in caplog.text
    assert "utt1 (first at exit 1)" in caplog.text
    for one, other in zip(trace.records, whole.records, strict=True):
        if one.id != "utt1":
            assert one == replace(other, set="tones")
            continue
        assert {exit_.hyp for exit_ in one.exits} == {""}
        assert {e.errors for e in one.exits} == {len(one.ref.split())}
    assert trace.evidence_names == whole.evidence_names
    row = trace.ids.index("utt1")
    for name in ("entropy", "max_prob", "ctc_forward", "hidden_cosine"):
        scores_NE = get_criterion(name).scores(trace.evidence)
        assert (scores_NE[row] <= scores_NE).all(), name


def test_the_selector_reads_the_same_whoever_is_imported(own):
    trace = synthetic_trace(30)
    values_NE = np.random.default_rng(0).random(trace.errors_NE.shape)
    trace = trace.with_columns({"own_late": values_NE, "foreign": values_NE})
    read = usable_evidence(trace)
    entry = registry._MEASURES.pop("own_late")
    assert usable_evidence(trace) == read == ("entropy",)
    registry._MEASURES["own_late"] = entry


def test_costs_are_those_of_the_model(tmp_path):
    brain = untrained(tmp_path)
    trace = brain.evaluate_exits("tones", tone_dataset(2), LOADER)
    width = brain.modules.model.heads.norms[0].normalized_shape[0]
    assert trace.header.width == width != 768
    frames_N = np.ceil(trace.durations_N * trace.header.frames_per_s)
    paid_NE = criterion_macs(trace, get_criterion("hidden_cosine"))
    assert paid_NE[:, 0].tolist() == (3 * frames_N * width).tolist()
    learned = get_criterion("learned")
    twice, once = learned.macs(100, 10, frames_per_s=50), learned.macs(50, 10)
    assert twice - once == 4 * 50 * 10  # the words are as many
    # as before, where nothing is known
    assert get_criterion("hidden_cosine").macs(2, 9) == 2 * 3 * 768
