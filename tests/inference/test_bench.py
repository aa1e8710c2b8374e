"""The command ``bench``: what it measures, with what, and in which order.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import csv
import json
import mmap
import os
import sys
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.calibration.policy_file import ExitPolicy
from speechbrain_ee.exits.policy import ThresholdPolicy
from speechbrain_ee.inference import bench
from speechbrain_ee.inference.bench import (
    Configuration,
    measure_in_turn,
    word_error_rate,
)
from speechbrain_ee.inference.policies import Policies
from speechbrain_ee.inference.recordings import Spoken, read_spoken
from speechbrain_ee.models.model import EarlyExitModel
from tests.helpers import SAMPLE_RATE
from tests.inference.heard import hypothesis, record
from tests.inference.live_runs import live_model, runner_of, waves

LENGTHS = (9000, 21000, 4000, 15500)


def entropy_policy(model: EarlyExitModel) -> ExitPolicy:
    """Half of the recordings stop at the first exit."""
    first = ThresholdPolicy("entropy", -np.inf)
    policy = Policies(model.exit_layers).resolve(first)
    runner, one = runner_of(model), torch.ones(1)
    scores = sorted(
        runner.run(wav[None], one, policy)[0].score for wav in waves(LENGTHS)
    )
    limit = (scores[1] + scores[2]) / 2
    return ExitPolicy("entropy", model.exit_layers, limit, "wer=+5%", "naive")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rows = [["ID", "wav", "wrd"]]
    for number, wav in enumerate(waves(LENGTHS)):
        path = record(tmp_path / f"audio/u{number}.flac", wav.numpy())
        rows.append([f"u{number}", path, f"t{number + 1} t2"])
    (tmp_path / "audio" / "notes.txt").write_text("no audio")
    with open(tmp_path / "test.csv", "w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return tmp_path


@pytest.fixture
def asr(monkeypatch) -> SimpleNamespace:
    model = live_model()
    entropy = entropy_policy(model)
    found = SimpleNamespace(
        folder=SimpleNamespace(name="tiny", tokenizer=None, calibration=None),
        sample_rate=SAMPLE_RATE,
        runner=runner_of(model),
        policies=Policies(model.exit_layers, {"fast": entropy}, "fast"),
        model=model,
    )

    def from_hparams(source, decoding=None):
        found.runner = runner_of(model, decoding or "ctc_greedy")
        return found

    monkeypatch.setattr(bench.EarlyExitASR, "from_hparams", from_hparams)
    return found


def arguments(*given: str) -> argparse.Namespace:
    """Options as the command line gives them."""
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args(["--model", "folder", *given])


def measured(corpus: Path, *given: str) -> tuple[list[dict], dict, str]:
    """Rows and whole result of the file that is written, and the table."""
    out = corpus / "new" / "bench.json"
    text = bench.run(arguments("--out", str(out), *given))
    result = json.loads(out.read_text())
    assert os.listdir(out.parent) == ["bench.json"]
    return result["results"], result, text


def test_all_combinations_are_measured(corpus, asr, monkeypatch) -> None:
    asked = []  # two threads that share a busy core take long
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    rows, result, text = measured(
        corpus,
        *("--data", str(corpus / "test.csv"), "--policy", "fast", "2"),
        *("--batch-size", "1", "3", "--threads", "1", "2"),
        *("--warmup", "1", "--repeats", "2"),
    )
    keys = ("policy", "batch_size", "threads", "backend")
    assert sorted(tuple(row[key] for key in keys) for row in rows) == sorted(
        product(("fast", "2", "last"), (1, 3), (1, 2), ("torch",))
    )
    for row in rows:
        assert len(row["wall_s_by_repeat"]) == 2
        assert row["rtf"] == pytest.approx(
            np.median(row["wall_s_by_repeat"]) / row["audio_s"], rel=1e-3
        )
        assert row["audio_s"] == pytest.approx(sum(LENGTHS) / 16000, abs=1e-3)
        assert row["policy"] in text
        # what a policy does depends neither on the batch nor on the threads
        for other in rows:
            for name in ("wer", "macs_per_utterance", "utterances_by_exit"):
                if other["policy"] == row["policy"]:
                    assert other[name] == row[name], name
        if row["policy"] == "last":
            assert (row["relative_time"], row["relative_macs"]) == (1, 1)
    known = result["machine"]
    assert known["cpu"] and known["cores"] >= 1 and known["torch"]
    assert {"load_1min_before", "load_1min_after", "ram_gib"} <= set(known)
    assert {1, 2} <= {*asked}


def test_counts_are_those_of_the_hypotheses(corpus, asr) -> None:
    rows, _, _ = measured(
        corpus,
        *("--data", str(corpus / "audio"), "--batch-size", "2"),
        *("--warmup", "0", "--repeats", "1"),
    )
    assert [row["policy"] for row in rows] == ["fast", "last"]
    spoken = read_spoken(corpus / "audio", SAMPLE_RATE)
    policy = asr.policies.resolve("fast")
    alone = [
        asr.runner.run(one.wav_S[None], torch.ones(1), policy)[0]
        for one in spoken
    ]
    row, total = rows[0], sum(h.macs for h in alone)
    exits = [h.exit for h in alone]
    assert len({*exits}) > 1
    assert row["macs_per_utterance"] == round(total / 4)
    assert row["average_layer"] == np.mean([h.layer for h in alone])
    assert row["utterances_by_exit"] == {
        str(k): exits.count(k) for k in sorted({*exits})
    }
    assert row["wer"] is None  # a folder has no references
    ratio = row["macs_per_audio_s"] / rows[1]["macs_per_audio_s"]
    assert row["relative_macs"] == pytest.approx(ratio, abs=1e-5)
    audio_s = sum(LENGTHS) / SAMPLE_RATE
    assert total / audio_s == pytest.approx(row["macs_per_audio_s"], abs=1)


def test_configurations_take_turns() -> None:
    """Warm-up does not count, the order turns round, threads are set."""
    calls, passes = [], []
    before = torch.get_num_threads()
    tasks = {}
    for name, threads in (("one", 1), ("two", before + 1)):

        def task(name: str = name):
            calls.append((name, torch.get_num_threads()))
            return (hypothesis("YES"),)

        tasks[Configuration(name, 1, threads, "torch")] = task
    found = measure_in_turn(tasks, 1, 3, 2.0, lambda: passes.append(1))
    order = "".join(name[0] for name, _ in calls)
    assert order in ("toottoot", "ottootto")
    assert {*calls} == {("one", 1), ("two", before + 1)}
    assert len(passes) == 8
    assert [len(each.wall_s_R) for each in found] == [3, 3]
    assert [each.configuration for each in found] == [*tasks]
    assert torch.get_num_threads() == before


def test_ratio_pairs_repeats() -> None:
    row = {"backend": "torch", "threads": 1, "batch_size": 1}
    rows = [
        {
            **row,
            "policy": policy,
            "wall_s_by_repeat": [factor * s for s in (1.0, 1.1, 9.0)],
            "macs_per_audio_s": macs,
        }
        for policy, factor, macs in (("fast", 0.5, 40), ("last", 1.0, 100))
    ]
    rows[0]["wall_s_by_repeat"][1] = 7.0  # one outlier
    fast, last = bench.with_ratios(rows)
    assert fast["relative_time"] == 0.5
    assert fast["relative_macs"] == 0.4
    assert last["relative_time"] == 1.0


@pytest.mark.parametrize(
    "wrong, named",
    [
        (["--batch-size", "0"], "--batch-size 0"),
        (["--threads", "1", "-1"], "--threads -1"),
        (["--repeats", "0"], "--repeats 0"),
        (["--warmup", "-1"], "--warmup -1"),
        (["--limit", "0"], "--limit 0"),
        (["--backend", "tpu"], "tpu.*torch, compiled, onnx, onnx-int8"),
        (["--policy", "nonesuch"], "nonesuch"),
        (["--policy", "9"], "exit 9"),
    ],
)
def test_wrong_options_are_refused(corpus, asr, wrong, named) -> None:
    given = arguments("--data", str(corpus / "test.csv"), *wrong)
    with pytest.raises(InputError, match=named):
        bench.run(given)


@pytest.mark.parametrize("name", ["onnx", "onnx-int8"])
def test_backend_that_is_not_installed(corpus, asr, name, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    given = arguments("--data", str(corpus / "test.csv"), "--backend", name)
    with pytest.raises(InputError, match=f"--backend {name}: .*pip install"):
        bench.run(given)


def test_graphs_are_not_compared_with_a_beam_search(corpus, asr) -> None:
    given = ["--backend", "onnx", "--decoding", "ctc_beam"]
    with pytest.raises(InputError, match="--decoding ctc_greedy"):
        bench.run(arguments("--data", str(corpus / "test.csv"), *given))


def test_limit_spreads_over_the_data(corpus) -> None:
    found = read_spoken(corpus / "test.csv", SAMPLE_RATE, limit=2)
    assert [one.id for one in found] == ["u0", "u2"]
    assert found[1].ref == "t3 t2"


@pytest.mark.parametrize("kind", ["missing", "empty", "columns", "folder"])
def test_wrong_data_is_refused(tmp_path, kind) -> None:
    path = tmp_path / "test.csv"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_text("ID,wav\n" if kind == "empty" else "a,b\n1,2\n")
    with pytest.raises(InputError, match=r"--data .*test\.csv"):
        read_spoken(path, SAMPLE_RATE)


def test_word_error_rate_counts_what_has_a_reference() -> None:
    silence = torch.zeros(1)
    spoken = [
        Spoken("a", silence, "one two three"),
        Spoken("b", silence),
        Spoken("c", silence, "four"),
    ]
    heard = [SimpleNamespace(text=one) for one in ("one too", "what", "four")]
    assert word_error_rate(heard, spoken) == 50.0
    assert word_error_rate(heard[1:2], spoken[1:2]) is None


def test_peak_memory_sees_what_was_given_back() -> None:
    own = bench.start_peak_memory()
    before = bench.peak_memory_mib()
    with mmap.mmap(-1, 64 * 2**20) as taken:
        # an array could be put where the process has held memory all along
        np.frombuffer(taken, dtype=np.uint8)[:: mmap.PAGESIZE] = 1
    after = bench.peak_memory_mib()
    assert after >= before
    if own:
        assert after > before + 15
    if bench.start_peak_memory():
        assert bench.peak_memory_mib() < after - 15
