"""Utterances in which nobody speaks, and sets of which nobody knows the words.

Protects: that batches without any transcript train and are decoded (they
ended in a ZeroDivisionError), and that a set without transcripts takes part
in everything but error rates, and takes none of the others with it.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import speechbrain as sb
import torch
from speechbrain.dataio.dataset import DynamicItemDataset

from speechbrain_ee.evaluation.analysis import analyse
from speechbrain_ee.evaluation.calibrate import calibrate_trace
from speechbrain_ee.evaluation.report import (
    console_tables,
    report_command,
    write_report,
)
from speechbrain_ee.evaluation.tables import compare_decodings
from speechbrain_ee.exits import Trace, read_trace, write_trace
from speechbrain_ee.exits.calibration.policy_file import write_policy
from speechbrain_ee.inference.folder.training_run import measure_choices
from tests.helpers import padded, tiny_brain, tiny_model, tone_dataset, valid
from tests.spoken import spoken

LAYERS = (2, 4, 6)


def wordless(data: DynamicItemDataset) -> DynamicItemDataset:
    """The same audio, in which nobody is said to speak."""
    none = {"tokens": torch.zeros(0, dtype=torch.long), "wrd": ""}
    rows = {name: row | none for name, row in data.data.items()}
    return DynamicItemDataset(rows, output_keys=["id", "sig", "wrd", "tokens"])


def unlabelled(trace: Trace, name: str) -> Trace:
    """The trace as a set of which nobody knows the words."""
    records = []
    for record in trace.records:
        exits = tuple(replace(each, errors=None) for each in record.exits)
        records.append(replace(record, set=name, ref="", exits=exits))
    return replace(trace, records=tuple(records), source=f"{name}.jsonl")


@pytest.mark.parametrize(("attention", "size"), [(None, 1), ("shared", 2)])
def test_batches_without_words_train(
    attention: str | None, size: int, tmp_path: Path
) -> None:
    """By the loss of their blanks; the model learns to write nothing."""
    model = tiny_model(attention=attention)
    brain = tiny_brain(tmp_path, model, epochs=3, lr=0.03)
    data = wordless(tone_dataset(size, first=3))
    with_words = tone_dataset(1, first=3)
    options = {"batch_size": size}
    brain.fit(
        brain.hparams.epoch_counter,
        data,
        with_words,
        train_loader_kwargs=options,
        valid_loader_kwargs=options,
    )
    brain.modules.eval()
    losses = brain.train_stats
    assert all(math.isfinite(loss) for loss in losses.values())
    assert 0 < losses["CTC loss L4"] < 30
    wavs, lengths = padded([row["sig"] for row in data])
    with torch.no_grad():
        for output in brain.modules.model(wavs, lengths):
            for row in range(size):
                assert not valid(output, row).argmax(-1).any()


def test_a_batch_of_silence_and_speech_keeps_its_tokens(tmp_path: Path) -> None:
    """Targets and their counts, with and without words, in any mixture."""
    brain = tiny_brain(tmp_path)
    spoken_rows = tone_dataset(2).data
    rows = {"s": wordless(tone_dataset(1)).data["utt0"], **spoken_rows}
    for names in (["s"], ["s", "utt1"], ["utt0", "utt1"]):
        data = DynamicItemDataset(
            {name: rows[name] for name in names},
            output_keys=["id", "sig", "wrd", "tokens"],
        )
        loader = brain.make_dataloader(
            data, sb.Stage.TEST, batch_size=len(names)
        )
        (batch,) = loader
        tokens, counts = brain.targets(batch, len(names))
        assert counts.tolist() == [len(rows[n]["tokens"]) for n in names]
        for name, row, count in zip(names, tokens, counts):
            assert row[:count].tolist() == rows[name]["tokens"].tolist()


def test_a_set_without_words_is_decoded_and_written(tmp_path: Path) -> None:
    """Hypotheses, evidence and costs are there; alignments have no rate."""
    brain = tiny_brain(tmp_path, average_checkpoints=0)
    options = {"batch_size": 2}
    data = wordless(tone_dataset(4))
    trace = brain.evaluate_exits("noise", data, options)
    assert len(trace) == 4 and trace.labelled_sets == ()
    assert trace.words_N.tolist() == [0, 0, 0, 0]
    again = read_trace(tmp_path / "traces" / "noise.jsonl.gz")
    assert again.records == trace.records
    assert (tmp_path / "wer_noise.txt").stat().st_size


def test_a_report_tells_what_is_chosen_where_nobody_knows_the_words(
    tmp_path: Path,
) -> None:
    """Its other sets are reported on as if it were not there."""
    clean = spoken(20, seed=1, name="clean")
    policy = calibrate_trace(clean, "entropy", "layers=4", "naive")
    noise = unlabelled(spoken(30, seed=2), "noise")
    both = write_report([noise, clean], tmp_path, "r", policies=[policy])
    assert list(both.sets) == ["clean"]
    assert both.sets["clean"].wer == analyse(clean).wer
    last, chosen = both.data["unlabelled"]
    assert (last["set"], last["layers"]) == ("noise", 6.0)
    exits_N = policy.choose(-noise.evidence_NE("entropy"))
    mean = sum(LAYERS[exit_] for exit_ in exits_N) / len(noise)
    assert chosen["layers"] == pytest.approx(mean)
    assert chosen["macs"] == pytest.approx(
        sum(noise.macs_NE[row, exit_] for row, exit_ in enumerate(exits_N)) / 30
    )
    text = console_tables(both)
    assert "set without transcripts" in text and policy.name in text
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "noise: no transcripts, 30 utterances" in page


def test_a_report_on_nothing_else_has_no_error_rates(tmp_path: Path) -> None:
    """And leaves none of an earlier report behind, by function or command."""
    out = tmp_path / "out"
    out.mkdir()
    for name in ("curves.png", "exits.csv", "overthinking.csv"):
        (out / name).write_text("of an earlier report")
    policy = calibrate_trace(spoken(20), "entropy", "layers=4", "naive")
    noise = unlabelled(spoken(30, seed=2), "noise")
    write_trace(tmp_path / "noise.jsonl", noise.header, noise.records)
    write_policy(tmp_path / "policy.yaml", policy)
    text = report_command(
        [tmp_path / "noise.jsonl"],
        out,
        policies=[tmp_path / "policy.yaml"],
        overthinking=True,
    )
    names = {path.name for path in out.iterdir()}
    assert names == {"report.json"}
    assert policy.name in text
    data = json.loads((out / "report.json").read_text("utf-8"))
    assert data["sets"] == {} and len(data["unlabelled"]) == 2


def test_folders_are_exported_with_the_sets_that_can_be_measured() -> None:
    """One set without words is no reason to write none."""
    clean = spoken(40, seed=1, name="clean")
    noise = unlabelled(spoken(30, seed=2), "noise")
    both = replace(clean, records=clean.records + noise.records)
    rows = measure_choices(both, {}, LAYERS)
    assert rows == measure_choices(clean, {}, LAYERS) != ()
    assert compare_decodings({"noise": (noise, noise)}) == {}
