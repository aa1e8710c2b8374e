"""Truncated folders: smaller, the same outputs, policies of their own.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import re
from dataclasses import replace

import pytest
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.calibrate import calibrate_trace
from speechbrain_ee.exits.trace import ExitRecord, Trace
from speechbrain_ee.inference import export as export_command
from speechbrain_ee.inference.export import add_arguments
from speechbrain_ee.inference.folder.model_folder import read_model_folder
from speechbrain_ee.inference.folder.shipped import (
    up_to_layer,
    without_transcripts,
)
from tests.inference.runs import (
    SYSTEMS,
    log_probs,
    random_trace,
    same,
)


def command(*arguments) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    export_command.run(parser.parse_args([str(each) for each in arguments]))


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("exits", [1, 2])
def test_truncated_folder_says_what_the_model_says(
    exported, tmp_path, system, exits
):
    whole = read_model_folder(exported(system))
    command(exported(system), "--out", tmp_path / "k", "--exit", exits)
    small = read_model_folder(tmp_path / "k")
    assert small.exit_layers == whole.exit_layers[:exits]
    depth = small.exit_layers[-1]
    assert len(small.model.encoder.layers) == depth
    spoken = log_probs(whole.model)
    kept = len(spoken) // len(whole.exit_layers) * exits
    assert same(log_probs(small.model), spoken[:kept])
    if whole.model.attention is not None:
        for name, tensor in small.model.attention.state_dict().items():
            assert torch.equal(tensor, whole.model.attention.state_dict()[name])
    sizes = [
        (folder.path / "model.safetensors").stat().st_size
        for folder in (small, whole)
    ]
    assert sizes[0] < sizes[1]


def test_truncated_policies_are_calibrated_again(run_of, exported, tmp_path):
    command(exported("digits"), "--out", tmp_path / "k", "--exit", 3)
    small = read_model_folder(tmp_path / "k")
    assert sorted(small.policies) == ["entropy.ltt", "entropy.naive"]
    assert small.selector.exit_layers == (1, 2, 3)
    assert small.combination is None
    dev = run_of("digits").dev
    cut = Trace(
        up_to_layer(dev, 3).header,
        tuple(replace(r, exits=r.exits[:3]) for r in dev.records),
    )
    for name, policy in small.policies.items():
        method = name.partition(".")[2]
        wanted = calibrate_trace(cut, "entropy", "wer=+50%", method)
        assert policy.threshold == wanted.threshold
        assert policy.exit_layers == (1, 2, 3)
    assert small.default_policy == "entropy.ltt"
    assert small.calibration.header.exit_layers == (1, 2, 3)
    assert "learned" not in small.calibration.evidence_names
    choices = {row.choice for row in small.measured}
    assert choices == {"exit 1", "exit 2", "exit 3"}
    card = (small.path / "README.md").read_text("utf-8")
    assert "Truncated: at exit 3 of 6" in card


def test_truncating_run_or_folder_gives_the_same(run_of, exported, tmp_path):
    command(run_of("digits").folder, "--out", tmp_path / "a", "--exit", 2)
    command(exported("digits"), "--out", tmp_path / "b", "--exit", 2)
    for name in (
        "model.safetensors",
        "tokenizer.model",
        "calibration.jsonl.gz",
        "policies/entropy.naive.yaml",
    ):
        one, other = (tmp_path / f / name for f in "ab")
        assert one.read_bytes() == other.read_bytes(), name
    # traces tell what the new policies do; a folder alone does not
    measured = read_model_folder(tmp_path / "a").measured
    assert {"entropy.naive", "exit 2"} <= {row.choice for row in measured}


def test_all_exits_change_nothing(exported, tmp_path):
    command(exported("digits"), "--out", tmp_path / "k", "--exit", 6)
    for path in exported("digits").rglob("*"):
        if path.is_file():
            other = tmp_path / "k" / path.relative_to(exported("digits"))
            assert other.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("exit", [0, 7, -1])
def test_there_is_no_such_exit(exported, tmp_path, exit):
    with pytest.raises(InputError, match="exits 1 to 6"):
        command(exported("digits"), "--out", tmp_path / "k", "--exit", exit)
    assert not (tmp_path / "k").exists()


def test_cut_traces_keep_what_they_say(run_of):
    trace = run_of("digits").dev
    cut = up_to_layer(trace, 2)
    assert cut.errors_NE.tolist() == trace.errors_NE[:, :2].tolist()
    assert cut.macs_NE.tolist() == trace.macs_NE[:, :2].tolist()
    assert cut.header.vocab_size == trace.header.vocab_size
    assert "learned" in trace.evidence_names
    assert cut.evidence_names == ("entropy",)


def test_no_transcript_is_left():
    trace = random_trace("dev", (1, 2), 0)
    records = []
    for record in trace.records:
        hyps = ("ONE TWO", "ONE TWO THREE FIVE")
        exits = tuple(
            ExitRecord(e.layer, hyp, None, e.evidence, e.macs, greedy=hyp)
            for e, hyp in zip(record.exits, hyps)
        )
        records.append(
            type(record)(record.id, record.set, record.ref, exits, 2.0)
        )
    trace = Trace(trace.header, tuple(records))
    blind = without_transcripts(trace)
    assert blind.errors_NE.tolist() == trace.errors_NE.tolist()
    assert blind.errors_NE[0].tolist() == [2, 1]
    assert blind.words_N.tolist() == trace.words_N.tolist()
    assert "ONE" not in str(blind.records) + str(blind.header)
    assert not re.search(r"speaker\d", str(blind.records))
