"""Exporting runs of training, whole or truncated, and the command that does it.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import logging
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.calibrate import calibrate_trace, default_of
from speechbrain_ee.exits.calibration.policy_file import (
    CalibrationSummary,
    ExitPolicy,
)
from speechbrain_ee.exits.trace import ExitRecord, Trace
from speechbrain_ee.exits.trace_file import write_trace
from speechbrain_ee.inference import export as export_command
from speechbrain_ee.inference.export import add_arguments
from speechbrain_ee.inference.folder.model_folder import (
    read_model_folder,
    up_to_layer,
)
from speechbrain_ee.inference.folder.training_run import (
    export_training,
    run_folder,
    without_transcripts,
)
from speechbrain_ee.models.model import EarlyExitModel
from tests.inference.runs import (
    SYSTEMS,
    Bomb,
    log_probs,
    random_trace,
    same,
    write_run,
)


class MyModel(EarlyExitModel):
    """A class that no table knows."""


def _ssl(folder: Path) -> dict:
    pytest.importorskip("transformers")
    from tests.models.ssl_models import write_ssl_model

    source = write_ssl_model(folder / "backbone")
    return {"source": str(source), "exit_layers": [1, 2, 3]}


def command(*arguments) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    export_command.run(parser.parse_args([str(each) for each in arguments]))


def test_the_command_says_what_it_wrote(exported, tmp_path, capsys):
    command(exported("digits"), "--out", tmp_path / "k", "--name", "Mine")
    said = capsys.readouterr().out
    assert read_model_folder(tmp_path / "k").name == "Mine"
    for part in ("Mine", "1, 2, 3, 4, 5, 6", "entropy.naive", "ctc_greedy"):
        assert part in said


def test_wrong_arguments_are_refused(exported, tmp_path):
    source, out = exported("digits"), tmp_path / "out"
    for arguments, said in {
        (source, "--format", "tflite"): "folder, onnx",
        (tmp_path / "empty",): "neither config.json nor hyperparams.yaml",
        (source, "--format", "onnx", "--push", "a/b"): "--push",
    }.items():
        with pytest.raises(InputError, match=said):
            command(*arguments, "--out", out)
        assert not out.exists()


def test_a_moved_run_is_exported_as_before(run_of, exported, tmp_path):
    moved = shutil.copytree(run_of("digits").folder, tmp_path / "moved")
    command(moved, "--out", tmp_path / "out")
    for path in exported("digits").rglob("*"):
        if path.is_file():
            other = tmp_path / "out" / path.relative_to(exported("digits"))
            assert other.read_bytes() == path.read_bytes(), path


def test_training_writes_its_folder_or_warns(tmp_path, caplog):
    run = write_run(tmp_path / "run", exit_layers=[1, 2])
    options = {"output_folder": str(run.folder)}
    assert export_training(options) == run.folder / "model"
    assert same(
        log_probs(read_model_folder(run.folder / "model").model),
        log_probs(run.model),
    )
    for checkpoint in (run.folder / "save").glob("CKPT*"):
        shutil.rmtree(checkpoint)
    with caplog.at_level(logging.WARNING):
        assert export_training(options) is None
    assert "No inference folder was written" in caplog.text
    assert "no checkpoint of a whole epoch" in caplog.text


def test_a_run_without_its_files_is_named(tmp_path):
    run = write_run(tmp_path / "run", exit_layers=[1, 2])
    checkpoint = next((run.folder / "save").glob("CKPT*"))
    size = (checkpoint / "model.ckpt").stat().st_size
    (checkpoint / "model.ckpt").write_bytes(b"broken".ljust(size))
    with pytest.raises(InputError, match="checkpoints cannot be loaded"):
        run_folder(run.folder)
    next((run.folder / "save").glob("*.model")).unlink()
    shutil.rmtree(checkpoint)
    with pytest.raises(InputError, match="tokenizer cannot be read"):
        run_folder(run.folder)


def test_a_checkpoint_bomb_is_refused(tmp_path):
    run = write_run(tmp_path / "run", exit_layers=[1])
    bomb = Bomb(tmp_path / "marker")
    for checkpoint in (run.folder / "save").glob("CKPT*"):
        torch.save({"weight": bomb}, checkpoint / "model.ckpt")
        size = (checkpoint / "model.ckpt").stat().st_size
        meta = checkpoint / "CKPT.yaml"  # which lists it as it is now
        text = meta.read_text("utf-8")
        meta.write_text(re.sub(r"(model.ckpt: )\d+", rf"\g<1>{size}", text))
    with pytest.raises(InputError, match="checkpoints cannot be loaded"):
        run_folder(run.folder)
    assert not bomb.marker.exists()


def test_runs_that_decode_some_exits_have_policies_for_these(tmp_path):
    run = write_run(tmp_path / "run", exit_layers=[1, 2, 3])
    for trace in (run.dev, run.test):
        cut = replace(trace.header, exit_layers=(1, 3))
        records = [
            replace(r, exits=(r.exits[0], r.exits[2])) for r in trace.records
        ]
        path = run.folder / "traces" / f"{trace.sets[0]}.jsonl.gz"
        write_trace(path, cut, records)
    command(run.folder, "--out", tmp_path / "out")
    folder = read_model_folder(tmp_path / "out")
    assert folder.exit_layers == (1, 2, 3)
    assert {p.exit_layers for p in folder.policies.values()} == {(1, 3)}
    assert sorted(folder.policies) == ["entropy.ltt", "entropy.naive"]
    choices = [row.choice for row in folder.measured]
    assert choices == ["exit 1", "exit 3", "entropy.ltt", "entropy.naive"]
    layers = [row.layer for row in folder.measured]
    assert layers[:2] == [1, 3]


def test_traces_of_another_model_are_left_out(tmp_path, caplog):
    run = write_run(tmp_path / "run", exit_layers=[1, 2, 3])
    for name in ("dev", "test"):
        trace = random_trace(name, (1, 2, 4), 0)
        path = run.folder / "traces" / f"{name}.jsonl.gz"
        write_trace(path, trace.header, trace.records)
    with caplog.at_level(logging.WARNING):
        folder = run_folder(run.folder)
    assert "left out" in caplog.text and "no policy is shipped" in caplog.text
    assert folder.policies == {} and folder.measured == ()
    assert folder.selector is None and folder.calibration is None


def test_exits_that_were_not_trained_are_left_out(tmp_path):
    run = write_run(tmp_path / "run", "tiny_ssl", **_ssl(tmp_path))
    path = run.folder / "hyperparams.yaml"
    text = path.read_text("utf-8")
    assert "  active_exits:" in text
    trained = text.replace("\n  active_exits:", "\n  active_exits: 2\n  #")
    path.write_text(trained, "utf-8")
    for trace in (run.dev, run.test):
        cut = up_to_layer(trace, 2)
        where = run.folder / "traces" / f"{trace.sets[0]}.jsonl.gz"
        write_trace(where, cut.header, cut.records)
    folder = run_folder(run.folder)
    assert folder.exit_layers == (1, 2)
    assert same(log_probs(folder.model), log_probs(run.model.truncated(2)))
    assert folder.default_policy == "entropy.ltt"


def test_language_models_cannot_be_shipped(run_of, tmp_path):
    run = shutil.copytree(run_of("digits_aed").folder, tmp_path / "run")
    path = Path(run) / "hyperparams.yaml"
    text = path.read_text("utf-8")
    path.write_text(
        text.replace("  beam_size: 10", "  scorers: [1]\n  beam_size: 10"),
        "utf-8",
    )
    with pytest.raises(InputError, match="key search.scorers"):
        run_folder(run)


def test_other_models_need_trust_and_are_not_written(tmp_path, caplog):
    run = write_run(tmp_path / "run", exit_layers=[1])
    path = run.folder / "hyperparams.yaml"
    name = "speechbrain_ee.models.model.EarlyExitModel"
    mine = "tests.inference.test_export.MyModel"
    path.write_text(path.read_text("utf-8").replace(name, mine), "utf-8")
    for path in run.folder.glob("save/*/CKPT.yaml"):
        text = path.read_text("utf-8").replace("EarlyExitModel", "MyModel")
        path.write_text(text, "utf-8")
    with pytest.raises(InputError, match="MyModel cannot be kept"):
        run_folder(run.folder)
    with caplog.at_level(logging.WARNING):
        folder = run_folder(run.folder, trust=True)
    assert "executing" in caplog.text
    assert type(folder.model).__name__ == "MyModel"
    assert same(log_probs(folder.model), log_probs(run.model))
    with pytest.raises(InputError, match="cannot be exported"):
        export_command.write_model_folder(tmp_path / "out", folder)


def test_the_default_computes_least_of_what_is_quick():
    """By Learn then Test; the learned selector is not as cheap as it counts."""
    trace = random_trace("dev", (1, 2), 0)
    policies = {}
    for name, layer in {
        "entropy": 1.5,
        "plausibility": 1.2,
        "learned": 1,
    }.items():
        summary = CalibrationSummary(
            "m", "ctc_greedy", ("dev",), 50, 99, 9.0, 9.0, avg_layer=layer
        )
        policies[f"{name}.ltt"] = ExitPolicy(
            name, (1, 2), 0.5, "wer=+5%", "ltt", calibration=summary
        )
    name, reason = default_of(policies, trace)
    assert name == "plausibility.ltt"
    assert "60% of the last exit's multiply-accumulates" in reason
    policies.pop("plausibility.ltt")
    assert default_of(policies, trace)[0] == "entropy.ltt"
    policies.pop("entropy.ltt")
    assert default_of(policies, trace)[0] is None


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
