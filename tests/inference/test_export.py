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
from speechbrain_ee.inference.folder.model_folder import (
    read_model_folder,
    up_to_layer,
    write_model_folder,
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
    Run,
    log_probs,
    random_trace,
    same,
    write_run,
)

SHIPPED = ["entropy.ltt", "entropy.naive"]


class MyModel(EarlyExitModel):
    """A class that no table knows."""


def command(*arguments) -> None:
    parser = argparse.ArgumentParser()
    export_command.add_arguments(parser)
    export_command.run(parser.parse_args([str(each) for each in arguments]))


def assert_same_files(folder: Path, other: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            content = (other / path.relative_to(folder)).read_bytes()
            assert content == path.read_bytes(), path


def rewrite_traces(run: Run, change) -> None:
    for trace in (run.dev, run.test):
        changed = change(trace)
        path = run.folder / "traces" / f"{trace.sets[0]}.jsonl.gz"
        write_trace(path, changed.header, changed.records)


def rewrite(path: Path, *pairs: tuple[str, str]) -> None:
    text = path.read_text("utf-8")
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, "utf-8")


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
        (tmp_path / "empty",): "empty/config.json: .*output_folder",
        (source, "--format", "onnx", "--push", "a/b"): "--push",
        **{(source, "--exit", k): "exits 1 to 6" for k in (0, 7, -1)},
    }.items():
        with pytest.raises(InputError, match=said):
            command(*arguments, "--out", out)
        assert not out.exists()


def test_a_moved_run_is_exported_as_before(run_of, exported, tmp_path):
    moved = shutil.copytree(run_of("digits").folder, tmp_path / "moved")
    command(moved, "--out", tmp_path / "out")
    assert_same_files(exported("digits"), tmp_path / "out")


def test_training_writes_its_folder_or_warns(tmp_path, caplog):
    run = write_run(tmp_path / "run", exit_layers=[1, 2])
    options = {"output_folder": str(run.folder)}
    assert export_training(options) == run.folder / "model"
    written = read_model_folder(run.folder / "model").model
    assert same(log_probs(written), log_probs(run.model))
    for checkpoint in (run.folder / "save").glob("CKPT*"):
        shutil.rmtree(checkpoint)
    with caplog.at_level(logging.WARNING):
        assert export_training(options) is None
    assert "No inference folder was written" in caplog.text
    assert "no checkpoint of a whole epoch" in caplog.text


def test_a_run_whose_files_are_damaged_is_named(tmp_path):
    """Pickles in them are not executed."""
    run = write_run(tmp_path / "run", exit_layers=[1, 2])
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
    run = write_run(tmp_path / "other", exit_layers=[1])
    next((run.folder / "save").glob("*.model")).unlink()
    with pytest.raises(InputError, match=r"32_char\.model: there is no such"):
        run_folder(run.folder)


def test_runs_that_decode_some_exits_have_policies_for_these(tmp_path):
    def first_and_last(trace):
        records = [
            replace(r, exits=(r.exits[0], r.exits[2])) for r in trace.records
        ]
        return Trace(replace(trace.header, exit_layers=(1, 3)), tuple(records))

    run = write_run(tmp_path / "run", exit_layers=[1, 2, 3])
    rewrite_traces(run, first_and_last)
    folder = run_folder(run.folder)
    assert folder.exit_layers == (1, 2, 3)
    assert {p.exit_layers for p in folder.policies.values()} == {(1, 3)}
    assert sorted(folder.policies) == SHIPPED
    choices = [row.choice for row in folder.measured]
    assert choices == ["exit 1", "exit 3", *SHIPPED]
    assert [row.layer for row in folder.measured][:2] == [1, 3]


def test_traces_of_another_model_are_left_out(tmp_path, caplog):
    run = write_run(tmp_path / "run", exit_layers=[1, 2, 3])
    rewrite_traces(run, lambda trace: random_trace("any", (1, 2, 4), 0))
    with caplog.at_level(logging.WARNING):
        folder = run_folder(run.folder)
    assert "left out" in caplog.text and "no policy is shipped" in caplog.text
    assert folder.policies == {} and folder.measured == ()
    assert folder.selector is None and folder.calibration is None


def test_exits_that_were_not_trained_are_left_out(run_of, tmp_path):
    shared = run_of("tiny_ssl")
    folder = Path(shutil.copytree(shared.folder, tmp_path / "run"))
    run = replace(shared, folder=folder)
    yaml = folder / "hyperparams.yaml"
    rewrite(yaml, ("\n  active_exits:", "\n  active_exits: 2\n  #"))
    rewrite_traces(run, lambda trace: up_to_layer(trace, 2))
    found = run_folder(folder)
    assert found.exit_layers == (1, 2)
    assert same(log_probs(found.model), log_probs(run.model.truncated(2)))
    assert found.default_policy == "entropy.ltt"


def test_language_models_cannot_be_shipped(run_of, tmp_path):
    run = Path(shutil.copytree(run_of("digits_aed").folder, tmp_path / "run"))
    pair = ("  beam_size: 10", "  scorers: [1]\n  beam_size: 10")
    rewrite(run / "hyperparams.yaml", pair)
    with pytest.raises(InputError, match="key search.scorers"):
        run_folder(run)


def test_other_models_need_trust_and_are_not_written(tmp_path, caplog):
    run = write_run(tmp_path / "run", exit_layers=[1])
    name = "speechbrain_ee.models.model.EarlyExitModel"
    mine = f"{__name__}.MyModel"
    rewrite(run.folder / "hyperparams.yaml", (name, mine))
    for path in run.folder.glob("save/*/CKPT.yaml"):
        rewrite(path, ("EarlyExitModel", "MyModel"))
    with pytest.raises(InputError, match="MyModel cannot be kept"):
        run_folder(run.folder)
    with caplog.at_level(logging.WARNING):
        folder = run_folder(run.folder, trust=True)
    assert "may be executed" in caplog.text
    assert type(folder.model).__name__ == "MyModel"
    assert same(log_probs(folder.model), log_probs(run.model))
    with pytest.raises(InputError, match="cannot be exported"):
        write_model_folder(tmp_path / "out", folder)


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
    for name, wanted in (("plausibility", "entropy.ltt"), ("entropy", None)):
        policies.pop(f"{name}.ltt")
        assert default_of(policies, trace)[0] == wanted


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("exits", [1, 2])
def test_truncated_folder_says_what_the_model_says(
    exported, tmp_path, system, exits
):
    whole = read_model_folder(exported(system))
    command(exported(system), "--out", tmp_path / "k", "--exit", exits)
    small = read_model_folder(tmp_path / "k")
    assert small.exit_layers == whole.exit_layers[:exits]
    assert len(small.model.encoder.layers) == small.exit_layers[-1]
    spoken = log_probs(whole.model)
    kept = len(spoken) // len(whole.exit_layers) * exits
    assert same(log_probs(small.model), spoken[:kept])
    if whole.model.attention is not None:
        for name, tensor in small.model.attention.state_dict().items():
            assert torch.equal(tensor, whole.model.attention.state_dict()[name])
    one, two = (f.path / "model.safetensors" for f in (small, whole))
    assert one.stat().st_size < two.stat().st_size


def test_truncated_policies_are_calibrated_again(run_of, exported, tmp_path):
    command(exported("digits"), "--out", tmp_path / "k", "--exit", 3)
    small = read_model_folder(tmp_path / "k")
    assert sorted(small.policies) == SHIPPED
    assert small.selector.exit_layers == (1, 2, 3)
    assert small.combination is None
    cut = up_to_layer(run_of("digits").dev, 3)
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
        *("model.safetensors", "tokenizer.model", "calibration.jsonl.gz"),
        "policies/entropy.naive.yaml",
    ):
        one, other = (tmp_path / f / name for f in "ab")
        assert one.read_bytes() == other.read_bytes(), name
    # traces tell what the new policies do; a folder alone does not
    measured = read_model_folder(tmp_path / "a").measured
    assert {"entropy.naive", "exit 2"} <= {row.choice for row in measured}
    command(exported("digits"), "--out", tmp_path / "all", "--exit", 6)
    assert_same_files(exported("digits"), tmp_path / "all")


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
        exits = tuple(
            ExitRecord(e.layer, hyp, None, e.evidence, e.macs, greedy=hyp)
            for e, hyp in zip(record.exits, ("ONE TWO", "ONE TWO THREE FIVE"))
        )
        records.append(replace(record, exits=exits))
    trace = Trace(trace.header, tuple(records))
    blind = without_transcripts(trace)
    assert blind.errors_NE.tolist() == trace.errors_NE.tolist()
    assert blind.errors_NE[0].tolist() == [2, 1]
    assert blind.words_N.tolist() == trace.words_N.tolist()
    assert "ONE" not in str(blind.records) + str(blind.header)
    assert not re.search(r"speaker\d", str(blind.records))
