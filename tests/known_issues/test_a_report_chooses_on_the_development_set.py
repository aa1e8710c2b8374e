"""Criterion and threshold of a report are not chosen on the test set.

They used to be: the criterion that did best on a test set was put first with
the error rate of the threshold that did best there, and nothing said so.

Authors
 * The speechbrain-ee contributors 2026
"""

import json

import numpy as np
import pytest

from speechbrain_ee.__main__ import main
from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.analysis import analyse_all
from speechbrain_ee.evaluation.curves import measure
from speechbrain_ee.evaluation.report import console_tables, write_report
from speechbrain_ee.evaluation.theme import leaders
from speechbrain_ee.exits import (
    ExitRecord,
    Trace,
    TraceHeader,
    UtteranceRecord,
    write_trace,
)
from speechbrain_ee.exits.policy import first_exit

LAYERS = (2, 4, 6)


def made(name, sees, seed, rows=120):
    """A set on which one criterion sees errors and the other hardly does."""
    generator = np.random.default_rng(seed)
    records = []
    for row in range(rows):
        exits = []
        for layer, chance in zip(LAYERS, (0.5, 0.25, 0.05), strict=True):
            errors = int(generator.binomial(10, chance))
            noisy = errors + generator.normal(0, 4)
            clear = errors + generator.normal(0, 0.3)
            entropy, margin = (
                (clear, -noisy) if sees == "entropy" else (noisy, -clear)
            )
            evidence = {"entropy": entropy, "margin": margin}
            exits.append(ExitRecord(layer, None, errors, evidence))
        records.append(
            UtteranceRecord(f"{name}-{row}", name, "w " * 10, tuple(exits))
        )
    return Trace(TraceHeader("m", "greedy", LAYERS), tuple(records), name)


@pytest.fixture(scope="module")
def both():
    return made("dev", "entropy", 1), made("test", "margin", 2)


@pytest.fixture(scope="module")
def report(both, tmp_path_factory):
    dev, test = both
    return write_report(test, tmp_path_factory.mktemp("dev"), "t", dev=dev)


@pytest.fixture(scope="module")
def alone(both, tmp_path_factory):
    return write_report(both[1], tmp_path_factory.mktemp("alone"), "t")


def test_what_is_put_first_is_the_development_sets_choice(both, report):
    dev, test = both
    analysis = report.sets["test"]
    own = {n: r.equal_wer.avg_layer for n, r in analysis.criteria.items()}
    assert min(own, key=own.get) == "margin"
    choice = analysis.choice()
    assert choice.result.name == "entropy" and choice.chosen_on == "dev"
    threshold = analysis.dev.criteria["entropy"].equal_wer.threshold
    used = measure(test, first_exit(-test.evidence_NE("entropy"), threshold))
    assert choice.point.threshold == threshold
    assert choice.point.wer == used.wer
    assert choice.point.avg_layer == used.avg_layer
    above = used.wer - analysis.wer[-1]
    assert choice.above_last.value == pytest.approx(above)
    assert analysis.ranked()[0].name == "entropy"
    assert {"entropy", "margin"} == set(leaders([analysis])["test"])
    assert sum(analysis.stops(choice)) == pytest.approx(1)


def test_files_page_and_console_say_so(report):
    analysis = report.sets["test"]
    point = analysis.choice().point
    data = json.loads((report.folder / "report.json").read_text())
    found = data["sets"]["test"]["chosen_on"]
    assert found["set"] == "dev"
    assert found["equal_wer"][0]["criterion"] == "entropy"
    assert found["equal_wer"][0]["wer"] == point.wer
    page = (report.folder / "report.html").read_text()
    assert "were chosen on dev," in page and "chosen on dev</th>" in page
    said = f"Here it makes {point.wer:.2f} % at {point.avg_layer:.2f} of 6"
    assert said in page
    text = " ".join(console_tables(report).split())
    assert "Chosen on dev to keep the last exit's word error rate" in text
    assert said in text


def test_without_a_development_set_the_report_says_that(report, alone):
    without = alone.data["sets"]["test"]
    assert report.data["sets"]["test"] | without == report.data["sets"]["test"]
    assert "chosen_on" not in without
    flattered = "chosen on this test set itself, which flatters them"
    assert flattered in " ".join(console_tables(alone).split())
    page = (alone.folder / "report.html").read_text()
    assert "were chosen on the test set that they are shown for" in page


def test_development_data_that_are_tested_choose_nothing(both, caplog):
    dev, test = both
    some = Trace(dev.header, (*dev.records, test.records[7]), "dev.jsonl")
    analysis = analyse_all([test], dev=some)["test"]
    assert "'test-7' is also in the test data of test" in caplog.text
    assert analysis.dev is None
    assert analysis.choice().result.name == "margin"


def test_development_data_of_other_exits_are_refused(both, tmp_path):
    dev, test = both
    header = TraceHeader("m", "greedy", (1, 2, 3))
    other = Trace(header, dev.records, "dev")
    with pytest.raises(InputError, match=r"\[1, 2, 3\].*\[2, 4, 6\]"):
        write_report(test, tmp_path, "t", dev=other)
    assert not list(tmp_path.iterdir())


def test_command(both, tmp_path, capsys):
    for trace in both:
        path = tmp_path / f"{trace.source}.jsonl"
        write_trace(path, trace.header, trace.records)
    line = f"report --trace {tmp_path}/test.jsonl --dev {tmp_path}/dev.jsonl"
    main([*line.split(), "--out", str(tmp_path / "out")])
    assert "Chosen on dev" in capsys.readouterr().out
