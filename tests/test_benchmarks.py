"""What the benchmarks conclude from traces, and that they compare like.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from speechbrain_ee.exits.decoding import SearchOptions
from speechbrain_ee.exits.trace import (
    ExitRecord,
    Trace,
    TraceHeader,
    UtteranceRecord,
)
from speechbrain_ee.exits.trace_file import write_trace
from tests.helpers import noise, padded, shaken, tiny_model


def load(repository: Path, name: str) -> ModuleType:
    """A module of the folder benchmarks/."""
    folder = repository / "benchmarks"
    sys.path.insert(0, str(folder))
    try:
        path = folder / f"{name}.py"
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    return module


@pytest.fixture(scope="module")
def benchmark(repository: Path) -> ModuleType:
    """The module benchmarks/joint_vs_single.py."""
    return load(repository, "joint_vs_single")


@pytest.fixture(scope="module")
def decodings(repository: Path) -> ModuleType:
    """The module benchmarks/decodings.py."""
    return load(repository, "decodings")


def trace_of(errors_N: np.ndarray, order: list[int]) -> Trace:
    """A single-exit trace of ten-word utterances, in a given order."""
    ref = " ".join("abcdefghij")
    records = [
        UtteranceRecord(
            f"utterance-{row}",
            "set",
            ref,
            (ExitRecord(4, errors=int(errors_N[row])),),
        )
        for row in order
    ]
    return Trace(TraceHeader("model", "greedy", (4,)), tuple(records))


def test_only_sets_of_all_models_are_compared(benchmark, tmp_path):
    """Single-exit models decode no development set."""
    trace = trace_of(np.arange(40) % 5, list(range(40)))
    for place in (
        "joint/traces/dev",
        "joint/traces/test",
        "single-4/traces/test",
    ):
        path = tmp_path / f"{place}.jsonl.gz"
        write_trace(path, trace.header, trace.records)
    assert [*benchmark.compare(tmp_path, [4])] == ["test"]


def test_difference_pairs_utterances_by_id(benchmark):
    errors_N = np.arange(40) % 5
    joint = trace_of(errors_N, list(range(40)))
    single = trace_of(errors_N, list(reversed(range(40))))
    result = benchmark.difference(joint, 0, single)
    assert result["difference"] == 0.0
    assert result["interval_95"] == [0.0, 0.0]
    assert result["joint_beats_single"].startswith("undecided")


def test_difference_answers_yes_and_no(benchmark):
    rng = np.random.default_rng(0)
    fewer_N = rng.integers(0, 3, 300)
    more_N = fewer_N + rng.integers(0, 2, 300)
    order = list(range(300))
    yes = benchmark.difference(
        trace_of(fewer_N, order), 0, trace_of(more_N, order)
    )
    assert yes["joint_beats_single"] == (
        "yes. By utterance; no promise for new speakers."
    )
    assert yes["interval_95"][1] < 0
    expected = 100 * (fewer_N.sum() - more_N.sum()) / 3000
    assert yes["difference"] == pytest.approx(expected, abs=0.01)
    no = benchmark.difference(
        trace_of(more_N, order), 0, trace_of(fewer_N, order)
    )
    assert no["joint_beats_single"].startswith("no")


LAYERS, ENCODER_MACS, SEARCH_MACS = (2, 4, 6), (100, 200, 300), (30, 40, 50)


def decoded_trace(decoding: str, first_wrong: int, rows: int = 30) -> Trace:
    """Ten-word utterances, the first of them wrong before the last exit.

    Both kinds of evidence order utterances alike: the wrong ones are unsure.
    """
    searched = decoding != "greedy"
    records = []
    for row in range(rows):
        exits = []
        for place, layer in enumerate(LAYERS):
            unsure = row < first_wrong and place < 2
            macs = ENCODER_MACS[place] + searched * SEARCH_MACS[place]
            evidence = {"entropy": float(unsure)}
            if searched:
                evidence["beam_score"] = -1.0 - unsure
            exits.append(
                ExitRecord(
                    layer,
                    errors=int(unsure),
                    evidence=evidence,
                    macs=macs,
                    decoding_macs=SEARCH_MACS[place] if searched else None,
                )
            )
        records.append(
            UtteranceRecord(f"u{row}", "test", "a " * 9 + "a", tuple(exits))
        )
    header = TraceHeader("m", decoding, LAYERS, parameters=(5, 6, 7))
    return Trace(header, tuple(records))


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A finished run, decoded in two ways; its development set in one."""
    joint, greedy = decoded_trace("joint", 6), decoded_trace("greedy", 9)
    files = {"test": joint, "test.ctc_greedy": greedy, "dev": joint}
    for name, trace in files.items():
        path = tmp_path / "traces" / f"{name}.jsonl.gz"
        write_trace(path, trace.header, trace.records)
    (tmp_path / "hyperparams.yaml").write_text(
        "model: !new:torch.nn.Linear {in_features: 3, out_features: 2}\n"
        "checkpointer: !new:no.such.Class {}\n"
        "train_logger: !new:no.such.Class {}\n"
    )
    return tmp_path


def test_decodings_by_exit(decodings, run_folder):
    sets = decodings.compare([run_folder])
    assert list(sets) == ["test"]  # of dev there is one decoding only
    (run,) = sets["test"]["runs"].values()
    assert list(run["exits"]) == ["ctc_greedy", "joint"]
    joint, greedy = run["exits"]["joint"], run["exits"]["ctc_greedy"]
    assert [row["wer"] for row in joint] == [2.0, 2.0, 0.0]
    assert [row["wer"] for row in greedy] == [3.0, 3.0, 0.0]
    assert [row["macs"] for row in joint] == [130, 240, 350]
    assert [row["decoding_macs"] for row in joint] == [30, 40, 50]
    assert [row["decoding_macs"] for row in greedy] == [0, 0, 0]
    assert run["parameters"] == {"model": 8, "by_exit": (5, 6, 7)}
    test = run["last_exit"]["joint - ctc_greedy"]
    assert test["answer"] == "undecided"
    assert test["interval_95"] == [0.0, 0.0]


def test_attention_evidence_pays_for_every_search(decodings, run_folder):
    """Same decisions as by the CTC head, more multiply-accumulates."""
    sets = decodings.compare([run_folder])
    (run,) = sets["test"]["runs"].values()
    rows = run["selection"]["rows"]
    by_ctc, by_attention = rows["entropy"], rows["beam_score"]
    assert (by_ctc["evidence"], by_attention["evidence"]) == (
        "CTC",
        "attention",
    )
    # six of thirty utterances go on to the last exit
    layers = (6 * 6 + 24 * 2) / 30
    macs = (6 * 350 + 24 * 130) / 30
    assert by_ctc["equal_wer"]["layers"] == pytest.approx(layers)
    assert by_ctc["equal_wer"]["macs"] == pytest.approx(macs)
    assert by_attention["equal_wer"]["layers"] == pytest.approx(layers)
    paid = macs + 6 * (30 + 40) / 30
    assert by_attention["equal_wer"]["macs"] == pytest.approx(paid)
    applied = {p["criterion"]: p for p in run["selection"]["policies"]}
    assert applied["beam_score"]["macs"] == pytest.approx(paid)


@pytest.mark.parametrize("decoders", ["shared", "separate"])
def test_one_encoder_pass(repository, decoders):
    module = load(repository, "one_encoder_pass")
    model = shaken(tiny_model(attention=decoders), by=0.2)
    options = SearchOptions(beam_size=3, max_decode_ratio=0.3)
    runner = module.Runner(model, "joint", options)
    batch = padded([noise(9000, 1), noise(6000, 2)])
    once, often = module.layer_calls(runner, *batch)
    assert once == [1, 1, 1, 1]
    assert often == [2, 2, 1, 1]  # exits after layers 2 and 4
    runner.one_pass = runner.pass_per_exit
    with pytest.raises(AssertionError, match="calls by layer"):
        module.layer_calls(runner, *batch)


def test_lines_of_code_are_neither_blank_nor_words(repository, tmp_path):
    (tmp_path / "one.py").write_text(
        '"""Docs\n\nof three lines."""\n\n# a comment\nimport os  # another\n\n\n'
        'def f(x):\n    """One line."""\n    return """text\nof code""" + x\n'
    )
    assert load(repository, "size").size(tmp_path) == (1, 12, 4)
