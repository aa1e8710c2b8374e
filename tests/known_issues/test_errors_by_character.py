"""Languages without spaces: errors are counted in characters, everywhere.

Protects: `error_unit: character` in validation, traces, calibration and
reports. By words, an utterance with one wrong character of thirty was wholly
wrong, and no exit was ever better than another.

Authors
 * The speechbrain-ee contributors 2026
"""

import re
from dataclasses import replace
from pathlib import Path

import jiwer
import numpy as np
import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.calibrate import calibrate_command
from speechbrain_ee.evaluation.report import console_tables, write_report
from speechbrain_ee.exits import (
    ExitRecord,
    Trace,
    TraceHeader,
    UtteranceRecord,
    read_trace,
    write_trace,
)
from speechbrain_ee.inference.folder.training_run import without_transcripts
from speechbrain_ee.sweeps.trial import valid_wers
from speechbrain_ee.training.monitor import ExitErrorRates
from tests.helpers import tiny_brain, tone_dataset

LETTERS = [chr(0x4E00 + n) for n in range(300)]
LAYERS = (2, 4, 6)


def chinese(utterances: int = 80, seed: int = 0) -> Trace:
    """Twenty characters each, of which every exit gets some wrong.

    The entropy of an exit tells how many; no exit is ever wholly right.
    """
    rng = np.random.default_rng(seed)
    records = []
    for n in range(utterances):
        ref = list(rng.choice(LETTERS, 20))
        hard = rng.integers(1, 7)
        exits = []
        for place, layer in enumerate(LAYERS):
            wrong = 1 + max(int(hard) - 2 * place, 0)
            hyp = "".join(["x"] * wrong + ref[wrong:])
            exits.append(ExitRecord(layer, hyp, None, {"entropy": wrong / 10}))
        records.append(
            UtteranceRecord(f"u{n}", "dev", "".join(ref), tuple(exits), 2.0)
        )
    header = TraceHeader("m", "greedy", LAYERS, error_unit="character")
    return Trace(header, tuple(records), "dev.jsonl")


def test_a_trace_counts_characters_and_says_so(tmp_path: Path) -> None:
    """As jiwer does; a file keeps the unit, and one without it is by words."""
    trace = chinese()
    refs = [row.ref for row in trace.records]
    for exit_ in range(3):
        hyps = [row.exits[exit_].hyp for row in trace.records]
        rate = trace.errors_NE[:, exit_].sum() / trace.words_N.sum()
        assert rate == pytest.approx(jiwer.cer(refs, hyps))
    path = tmp_path / "t.jsonl"
    write_trace(path, trace.header, trace.records)
    again = read_trace(path)
    assert again.header == trace.header
    assert again.subset("dev").errors_NE.tolist() == trace.errors_NE.tolist()
    text = path.read_text("utf-8")
    path.write_text(text.replace('"character"', '"letter"'), "utf-8")
    with pytest.raises(InputError, match=r"line 1, field error_unit.*letter"):
        read_trace(path)
    by_word = TraceHeader("m", "greedy", LAYERS)
    write_trace(path, by_word, trace.records)
    assert "error_unit" not in path.read_text("utf-8")
    assert set(read_trace(path).words_N.tolist()) == {1}


def test_a_policy_is_calibrated_on_characters(tmp_path: Path) -> None:
    """By words there is nothing to choose: every exit is always wrong."""
    trace = chinese()
    write_trace(tmp_path / "c.jsonl", trace.header, trace.records)
    by_word = replace(trace.header, error_unit="word")
    write_trace(tmp_path / "w.jsonl", by_word, trace.records)
    for name, said, layers in (
        ("c", "1600 characters", (2.01, 5.99)),
        ("w", "80 words", (2.0, 2.0)),
    ):
        out = tmp_path / f"{name}.yaml"
        text = calibrate_command(
            tmp_path / f"{name}.jsonl", "entropy", "wer=+50%", "naive", out=out
        )
        policy = out.read_text("utf-8")
        assert said in text
        assert f"{'character' if name == 'c' else 'word'} error rate" in policy
        (layer,) = re.findall(r"(?m)^ *avg_layer: (.*)$", policy)
        assert layers[0] <= float(layer) <= layers[1]


def test_reports_and_folders_keep_the_unit(tmp_path: Path) -> None:
    """What is shown is the character error rate, and is called so."""
    trace = chinese(20)
    report = write_report([trace], tmp_path / "r", "r")
    rates = report.data["sets"]["dev"]
    last = 100 * trace.errors_NE[:, -1].sum() / 400
    assert rates["wer"][-1] == pytest.approx(last)
    assert rates["words"] == 400
    assert report.data["traces"][0]["error_unit"] == "character"
    assert "400 characters" in console_tables(report)
    page = (tmp_path / "r" / "report.html").read_text("utf-8")
    assert "is the character error rate" in page
    shipped = without_transcripts(trace)
    assert shipped.words_N.tolist() == trace.words_N.tolist()
    assert shipped.errors_NE.tolist() == trace.errors_NE.tolist()


def test_checkpoints_are_chosen_by_characters(tmp_path: Path) -> None:
    """The log names the rate, and sweeps find it there."""
    rates = ExitErrorRates([2, 4], "character")
    rates.append(["你好吗"], [["你好"], ["你好吗"]])
    assert rates.wer == (pytest.approx(100 / 3), 0.0)
    brain = tiny_brain(tmp_path, error_unit="character")
    data = tone_dataset(2)
    options = {"batch_size": 4}
    brain.fit(
        brain.hparams.epoch_counter,
        data,
        data,
        train_loader_kwargs=options,
        valid_loader_kwargs=options,
    )
    log = (tmp_path / "train_log.txt").read_text("utf-8")
    trace = brain.evaluate_exits("dev", data, options)
    assert trace.header.error_unit == "character"
    letters = sum(len(row["wrd"]) for row in data.data.values())
    assert trace.words_N.sum() == letters
    wer = 100 * trace.errors_NE[:, -1].sum() / letters
    assert "valid CER L4" in log
    assert valid_wers(log)[1] == pytest.approx(wer, rel=0.01)
    stats = (tmp_path / "wer_dev.txt").read_text("utf-8")
    assert f"/ {letters}," in stats
