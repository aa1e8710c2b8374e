"""From whatever a user names to a model, or to a sentence that says why not.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
from dataclasses import replace

import pytest
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.asr import EarlyExitASR, open_source
from speechbrain_ee.inference.export import export_command
from speechbrain_ee.inference.folder.model_folder import read_model_folder
from speechbrain_ee.inference.policies import exit_ladder
from speechbrain_ee.inference.transcribe import make_controller
from tests.inference.runs import log_probs


def test_a_run_says_what_its_export_says(run_of, exported):
    """Both can be opened, without an export in between."""
    run, folder = open_source(run_of("digits").folder), exported("digits")
    assert run.exit_layers == open_source(folder).exit_layers
    with torch.no_grad():
        said, expected = (
            log_probs(each.model.eval())
            for each in (run, read_model_folder(folder))
        )
    for ours, theirs in zip(said, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_trust_is_said_aloud(run_of, exported, caplog):
    """Of runs alone: nothing in an inference folder is executed."""
    with caplog.at_level(logging.WARNING, logger="speechbrain_ee"):
        open_source(exported("digits"), trust=True)
        assert not caplog.records
        open_source(run_of("digits").folder, trust=True)
    assert "may be executed" in caplog.text


def test_neither_folder_nor_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no/such/folder"):
        EarlyExitASR.from_hparams("no/such/folder")
    with pytest.raises(InputError, match="empty"):
        (tmp_path / "empty").mkdir()
        open_source(tmp_path / "empty")


def test_an_export_needs_a_run_or_a_folder(tmp_path):
    with pytest.raises(InputError, match="neither .* output_folder"):
        export_command(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"format": "tflite"}, "--format tflite: use one of folder, onnx"),
        ({"format": "onnx", "push": "me/model"}, "--push"),
    ],
)
def test_wrong_options_of_an_export(exported, tmp_path, options, said):
    with pytest.raises(InputError, match=said):
        export_command(exported("digits"), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_is_cut_by_an_export(exported, tmp_path):
    """An inference folder, too, can end at an earlier exit."""
    export_command(exported("digits"), tmp_path / "cut", exit=1)
    whole, cut = (
        read_model_folder(folder)
        for folder in (exported("digits"), tmp_path / "cut")
    )
    assert cut.exit_layers == whole.exit_layers[:1]


def test_a_deadline_needs_to_know_what_exits_cost(exported):
    asr = EarlyExitASR.from_hparams(exported("digits"))
    asr.folder = replace(asr.folder, calibration=None)
    with pytest.raises(InputError, match="calibration.jsonl.gz"):
        make_controller(asr, 0.5)


def test_a_deadline_lowers_what_was_asked_for(exported):
    """With a policy its own thresholds, with a fixed exit no later one."""
    folder = exported("digits")
    asr = EarlyExitASR.from_hparams(folder, policy=2)
    known = exit_ladder(asr.folder.calibration, asr.model.exit_layers, 2)
    fixed = make_controller(asr, 0.5).ladder
    assert [rung.policy.exits for rung in fixed] == [
        (rung.policy.exit,) for rung in known
    ]
    assert fixed[-1].policy == asr.policy
