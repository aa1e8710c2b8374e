"""Test sets decoded in several ways: one pass, a trace for each.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits import Trace, read_trace
from speechbrain_ee.exits.decoding import SearchOptions
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.training.systems import (
    CTCAttentionEarlyExitBrain,
    CTCEarlyExitBrain,
)
from tests.helpers import EXITS, shaken, tiny_brain, tiny_model, tone_dataset

DECODINGS = ["joint", "ctc_greedy", "ctc_beam", "attention", "rescoring"]
BY_SEARCH = {
    "beam_score",
    "beam_posterior",
    "token_confidence",
    "token_confidence_min",
}
DEV, TEST, BATCH = 20, 6, 4
TESTS = {"clean": tone_dataset(TEST, 2, 3), "other": tone_dataset(TEST, 3, 3)}


def speaking_model(end: float = 2.0) -> EarlyExitModel:
    model = shaken(tiny_model(attention="shared"), by=0.2)
    for decoder in model.attention.decoders:
        with torch.no_grad():
            decoder.output.weight *= 3
            decoder.output.bias[model.attention.eos_index] += end
    return model


def brain_in(
    folder: Path, model: EarlyExitModel | None = None, **options: Any
) -> CTCEarlyExitBrain:
    (folder / "save").mkdir(parents=True, exist_ok=True)
    return tiny_brain(
        folder,
        model=speaking_model() if model is None else model,
        save_folder=str(folder / "save"),
        exit_budget=None,
        average_checkpoints=0,  # as it is
        **{"search": SearchOptions(beam_size=2), **options},
    )


@pytest.fixture(scope="module")
def decoded(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, CTCEarlyExitBrain, dict[str, Trace], Counter]:
    folder = tmp_path_factory.mktemp("decoded")
    brain = brain_in(folder, decodings=DECODINGS)
    assert isinstance(brain, CTCAttentionEarlyExitBrain)
    calls: Counter = Counter()
    for index, layer in enumerate(brain.modules.model.encoder.layers):
        layer.register_forward_hook(
            lambda *_, index=index: calls.update([index])
        )
    loader = {"batch_size": BATCH}
    brain.learn_selection("dev", tone_dataset(DEV, 1, 3), loader, ["tone3"])
    traces = {
        name: brain.evaluate_exits(name, data, loader)
        for name, data in TESTS.items()
    }
    return folder, brain, traces, calls


def test_a_trace_for_every_decoding(decoded):
    folder, brain, traces, _ = decoded
    assert {path.name for path in (folder / "traces").iterdir()} == {
        "dev.jsonl.gz",
        *(f"{name}.jsonl.gz" for name in TESTS),
        *(f"{name}.{way}.jsonl.gz" for name in TESTS for way in DECODINGS[1:]),
    }
    for name in TESTS:
        assert len(brain.evaluator.decoded[name]) == len(DECODINGS)
        assert brain.evaluator.decoded[name][0] is traces[name]
        for way, trace in zip(
            DECODINGS, brain.evaluator.decoded[name], strict=True
        ):
            infix = "" if way == "joint" else f".{way}"
            written = read_trace(folder / "traces" / f"{name}{infix}.jsonl.gz")
            assert written.records == trace.records
            assert written.header == trace.header
            said = "greedy" if way == "ctc_greedy" else way
            assert trace.header.decoding == said
            assert trace.header.exit_layers == EXITS
            assert trace.sets == (name,) and len(trace) == TEST


def test_one_pass_over_every_set(decoded):
    """However many ways it is decoded in."""
    _, brain, _, calls = decoded
    batches = DEV // BATCH + 2 * -(-TEST // BATCH)
    layers = len(brain.modules.model.encoder.layers)
    assert calls == dict.fromkeys(range(layers), batches)


def test_decodings_share_what_the_exits_said(decoded):
    _, brain, _, _ = decoded
    by_way = dict(zip(DECODINGS, brain.evaluator.decoded["clean"], strict=True))
    greedy = by_way["ctc_greedy"]
    assert greedy.decoding_macs_NE is None
    assert len({str(trace.edits_NE3.tolist()) for trace in by_way.values()}) > 2
    for way, trace in by_way.items():
        assert trace.ids == greedy.ids
        names = {*trace.evidence_names}
        searched = way in ("joint", "attention", "rescoring")
        assert (BY_SEARCH <= names) == searched
        assert searched or not BY_SEARCH & names
        texts = [[e.hyp for e in row.exits] for row in greedy.records]
        assert trace.evidence.transcripts() == texts
        spent_NE = trace.macs_NE - greedy.macs_NE
        if way != "ctc_greedy":
            assert (spent_NE > 0).all()
            assert np.array_equal(spent_NE, trace.decoding_macs_NE)


def test_some_exits(decoded, tmp_path):
    """The last one as in the trace of all, the others not looked at."""
    brain = brain_in(tmp_path, decodings=["joint"], decoded_exits=[2])
    loader = {"batch_size": BATCH}
    brain.learn_selection("dev", TESTS["other"], loader, ["tone3"])
    assert (
        brain.evaluator.selection is None and not (tmp_path / "traces").exists()
    )
    trace = brain.evaluate_exits("clean", TESTS["clean"], loader)
    whole = decoded[2]["clean"]
    assert trace.header.exit_layers == EXITS[1:]
    assert trace.header.parameters == whole.header.parameters[1:]
    assert np.array_equal(trace.errors_NE, whole.errors_NE[:, 1:])
    assert np.array_equal(trace.decoding_macs_NE, whole.decoding_macs_NE[:, 1:])
    for one, other in zip(trace.records, whole.records, strict=True):
        assert one.exits[0].hyp == other.exits[1].hyp
        # the head of the first exit does not run
        assert 0 < other.exits[1].macs - one.exits[0].macs
        assert one.exits[0].evidence["beam_score"] == pytest.approx(
            other.exits[1].evidence["beam_score"], rel=1e-5
        )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"decodings": ["jiont"]}, "decodings: 'jiont' is unknown.*joint"),
        ({"decodings": []}, r"decodings: \[\] must be a list"),
        ({"decodings": "joint"}, "decodings: 'joint' must be a list"),
        ({"decodings": ["joint"] * 2}, "decodings: .* different ways"),
        ({"decoded_exits": []}, r"decoded_exits: \[\] must be .*\[2\]"),
        ({"decoded_exits": [3]}, r"decoded_exits: \[3\] .* 1 and 2"),
        ({"decoded_exits": [0, 1]}, r"decoded_exits: \[0, 1\] .* 1 and 2"),
        ({"decoded_exits": [2, 1]}, "decoded_exits: .* increasing"),
        ({"decoded_exits": [1, 1]}, "decoded_exits: .* increasing"),
    ],
)
def test_wrong_options_stop_before_training(tmp_path, options, said):
    with pytest.raises(InputError, match=f"^{said}"):
        brain_in(tmp_path, **options)


def test_a_model_without_attention_heads(tmp_path):
    with pytest.raises(InputError, match="decodings: 'joint' needs attention"):
        brain_in(tmp_path, tiny_model(), decodings=["ctc_greedy", "joint"])
    brain = brain_in(tmp_path, tiny_model(), decodings=["ctc_beam"])
    trace = brain.evaluate_exits("clean", TESTS["clean"], {"batch_size": 9})
    assert trace.header.decoding == "ctc_beam"
    assert (trace.decoding_macs_NE > 0).all()


def test_a_decoder_that_never_ends_is_counted(tmp_path, caplog):
    search = SearchOptions(
        beam_size=2, max_decode_ratio=0.1, using_eos_threshold=False
    )
    brain = brain_in(
        tmp_path,
        speaking_model(end=-1000.0),
        decodings=["ctc_greedy", "attention"],
        search=search,
    )
    with caplog.at_level(logging.WARNING, logger="speechbrain_ee"):
        brain.evaluate_exits("clean", TESTS["clean"], {"batch_size": 3})
    (line,) = [
        r.getMessage() for r in caplog.records if "cut" in r.getMessage()
    ]
    assert line.startswith(f"clean, attention: {2 * TEST} of {2 * TEST} ")
    assert "`max_decode_ratio`" in line
    for row in brain.evaluator.decoded["clean"][1].records:
        frames = (
            row.duration_s
            * brain.evaluator.decoded["clean"][1].header.frames_per_s
        )
        for exit_ in row.exits:
            assert 1 <= len(exit_.hyp.split()) <= 0.1 * (frames + 2)
