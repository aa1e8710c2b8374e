"""Reports: numbers that agree with the trace, files that stand alone.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import json
import logging
import re
from dataclasses import replace

import jiwer
import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.report import (
    console_tables,
    report_command,
    write_report,
)
from speechbrain_ee.evaluation.tables import overview_table
from speechbrain_ee.exits import (
    ExitRecord,
    Trace,
    TraceHeader,
    UtteranceRecord,
    read_trace,
    write_trace,
)
from tests.evaluation.made_up import HYPS, REF, counts_alone, small_trace

FILES = {
    "report.json",
    "report.html",
    "exits.csv",
    "criteria.csv",
    "curves.png",
    "curves.pdf",
}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "new" / "folder"
    return write_report(small_trace(), folder, "A & B", {"epochs": 3})


def test_files_and_nothing_else(report):
    assert {path.name for path in report.folder.iterdir()} == FILES


def test_json_says_what_the_trace_says(report):
    data = json.loads((report.folder / "report.json").read_text())
    assert data == json.loads(json.dumps(report.data))
    clean = data["sets"]["clean"]
    for k in range(3):
        hyps = [HYPS[name][k] for name in HYPS]
        expected = 100 * jiwer.wer([REF] * 3, hyps)
        assert clean["wer"][k] == pytest.approx(expected)
        row = clean["exits"][k]
        edits = sum(
            row[kind] for kind in ("substitutions", "deletions", "insertions")
        )
        assert 100 * edits / row["words"] == pytest.approx(expected)
    assert clean["exits"][0]["cer"] is None
    assert clean["exits"][2]["cer"] == pytest.approx(
        100 * jiwer.cer([REF] * 3, [HYPS[name][2] for name in HYPS])
    )
    # easy stops at 2; over is right at 4; hard needs all layers
    assert clean["oracle_best"] == {
        "avg_layer": 4.0,
        "wer": 0.0,
        "avg_macs": pytest.approx(0.8e9),
    }
    assert clean["overthinking_share"] == pytest.approx(1 / 3)
    assert clean["overthinking_errors"] == 2
    assert clean["oracle_exit_shares"] == pytest.approx([1 / 3] * 3)


def test_criterion_at_equal_wer(report):
    found = report.data["sets"]["clean"]["criteria"]
    assert list(found)[0] == "entropy" and "agreement" in found
    assert not {"fixed", "random", "homemade"} & set(found)
    # entropy <= 0.6 stops easy at 2, hard (2 errors) and over (none) at 4:
    # as many errors as the last exit, which makes both of its own in over
    equal = found["entropy"]["equal_wer"]
    assert equal["avg_layer"] == pytest.approx(10 / 3)
    assert equal["wer"] == pytest.approx(100 * 2 / 18)
    assert equal["threshold"] == -0.6
    assert found["entropy"]["exit_shares"] == pytest.approx([1 / 3, 2 / 3, 0])


def test_csv_tables(report):
    with open(report.folder / "exits.csv", newline="") as stream:
        exits = list(csv.DictReader(stream))
    assert [(r["set"], r["layer"]) for r in exits] == [
        (s, layer) for s in ("clean", "other") for layer in "246"
    ]
    with open(report.folder / "criteria.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    half = rows[: len(rows) // 2]
    names = [row["criterion"] for row in half]
    assert names[:2] == ["fixed", "mixture"] and names[-1] == "oracle"
    entropy = half[names.index("entropy")]
    data = report.data["sets"]["clean"]["criteria"]["entropy"]
    for level in ("equal_wer", "plus_1", "plus_5", "plus_10"):
        assert float(entropy[f"{level}_layers"]) == data[level]["avg_layer"]
        assert [
            float(entropy[f"{level}_layers_{end}"]) for end in ("low", "high")
        ] == data["layer_intervals"][level]
        share = float(entropy[f"{level}_gap_share"])
        assert share == data["gap_shares"][level]


def test_page_stands_alone(report):
    text = (report.folder / "report.html").read_text()
    links = re.findall(r'\s(?:src|href|xlink:href)="([^"]*)"', text)
    assert links and all(link.startswith("#") for link in links)
    assert text.count("<script>") == text.count("<script") == 1
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert "A &amp; B" in text and "small &lt;model&gt;" in text
    assert "over-clean" in text and "&lt;three&gt; &amp;" in text
    assert "epochs" in text


def test_drawings_have_their_own_names_and_the_pages_colours(report):
    text = (report.folder / "report.html").read_text()
    body = text[text.index("<body>") :]
    names = re.findall(r'\bid="([^"]+)"', body)
    assert len(set(names)) == len(names)
    used = re.findall(r'(?:href="|url\()#([^")]+)', body)
    assert used and set(used) <= set(names)
    assert body.count("<figcaption>") == 2  # layers; GMAC say the same
    assert not re.search(r"#[0-9a-f]{6}\b", body)  # none fixed: dark pages
    assert ">L6</text>" in body and "var(--c0)" in body


def test_overview(report):
    table = overview_table(list(report.sets.values()))
    clean, other = table.rows
    assert len(table.heading) == len(clean) == 11
    assert [clean[0], other[0]] == ["clean", "other"]
    assert clean[1:4] == ["11.11", "6.00", "1.20"]
    assert clean[6:9] == ["3.33", "0.67", "entropy"]
    analysis = report.sets["clean"]
    for place, result in ((4, analysis.mixture), (9, analysis.oracle)):
        point = result.equal_wer
        assert clean[place] == f"{point.avg_layer:.2f}"
        assert clean[place + 1] == f"{point.avg_macs / 1e9:.2f}"


def test_headings_are_grouped(report):
    text = (report.folder / "report.html").read_text()
    # one group above several columns, its name not repeated in each
    assert re.search(r'<th class="group" colspan="3">last exit</th>', text)
    assert "last exit: " not in text
    lines = console_tables(report).splitlines()
    above = next(line for line in lines if "layers at WER" in line)
    below = lines[lines.index(above) + 1]
    places = [below.index(name) for name in ("equal", "+10 %")]
    assert places[0] - 6 < above.index("layers at WER") < places[1]


def test_json_of_a_criterion(report):
    sets = json.loads((report.folder / "report.json").read_text())["sets"]
    found = sets["clean"]["criteria"]["entropy"]
    curve = found["curve"]
    assert len({len(column) for column in curve.values()}) == 1
    for low, wer, high in zip(
        curve["wer_low"], curve["wer"], curve["wer_high"]
    ):
        assert low <= wer + 1e-4 and wer <= high + 1e-4
    mixture, oracle = sets["clean"]["mixture"], sets["clean"]["oracle"]
    blind, best = (d["equal_wer"]["avg_layer"] for d in (mixture, oracle))
    share = (blind - found["equal_wer"]["avg_layer"]) / (blind - best)
    assert found["gap_shares"]["equal_wer"] == pytest.approx(share)
    groups = found["difficulty"]
    assert groups["names"] == ["easy", "medium", "hard"]
    # easy is right everywhere and stops first
    assert groups["shares"][0] == [1.0, 0.0, 0.0]
    # both sets hold the same utterances
    moved = report.data["transfer"]["entropy"]
    assert {*moved} == {*moved["clean"]} == {"clean", "other"}
    assert moved["clean"]["other"] == moved["other"]["other"]
    point = found["plus_5"]
    assert moved["clean"]["other"]["avg_layer"] == point["avg_layer"]
    assert moved["clean"]["other"]["excess"] == pytest.approx(0)
    (example, *_) = sets["clean"]["examples"]
    assert example["kind"] == "overthinking" and example["errors"] == [4, 0, 2]
    assert example["ref"] == REF and example["hyps"] == list(HYPS["over"])


@pytest.mark.usefixtures("undrawn")
def test_unknown_evidence_is_logged_and_left_out(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        write_report(small_trace(), tmp_path, "t")
    assert "homemade" in caplog.text


@pytest.mark.usefixtures("undrawn")
def test_without_evidence_hypotheses_or_macs(tmp_path):
    report = write_report(counts_alone(), tmp_path, "bare", overthinking=True)
    clean = report.data["sets"]["clean"]
    assert clean["criteria"] == {} and clean["examples"] == []
    assert report.data["transfer"] == {}
    assert clean["oracle_best"]["avg_layer"] == 4.0
    assert all(not s.carried for s in report.overthinking.sets.values())
    text = console_tables(report)
    assert "GMAC" not in text and "Shift" not in text
    exits = (ExitRecord(1, "a", None, {"entropy": 0.0}),)
    perfect = Trace(
        TraceHeader("m", "d", (1,)), (UtteranceRecord("u", "s", "a", exits),)
    )
    data = write_report(perfect, tmp_path, "t").data["sets"]["s"]
    assert data["wer"] == [0.0] and data["overthinking_share"] == 0.0


@pytest.mark.usefixtures("undrawn")
def test_two_traces_with_the_same_sets(tmp_path):
    one = small_trace()
    two = Trace(replace(one.header, decoding="beam"), one.records)
    report = write_report([one, two], tmp_path, "both")
    assert list(report.sets) == [
        "clean, greedy",
        "other, greedy",
        "clean, beam",
        "other, beam",
    ]
    with pytest.raises(InputError, match="twice"):
        write_report([one, one], tmp_path, "same")


@pytest.mark.usefixtures("undrawn")
def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(small_trace(), tmp_path / "file", "t")


@pytest.mark.usefixtures("undrawn")
def test_command(tmp_path):
    path = tmp_path / "t.jsonl.gz"
    write_trace(path, small_trace().header, small_trace().records)
    text = report_command([path], tmp_path / "out")
    assert "clean" in text and str(tmp_path / "out") in text
    data = json.loads(report_command([path], tmp_path / "out", as_json=True))
    assert set(data["sets"]) == {"clean", "other"}
    with pytest.raises(InputError, match="cannot be read"):
        report_command([tmp_path / "none.jsonl"], tmp_path / "out2")
    assert not (tmp_path / "out2").exists()


@pytest.mark.usefixtures("undrawn")
def test_published_traces(shared_folder, tmp_path):
    traces = [
        read_trace(shared_folder / "traces" / f"wav2vec2-ee.{kind}.jsonl.gz")
        for kind in ("greedy", "beam")
    ]
    report = write_report(traces, tmp_path, "t", overthinking=True)
    sets = report.data["sets"]
    assert len(sets) == 4
    clean, other = sets["test-clean, greedy"], sets["test-other, greedy"]
    shares = [clean["overthinking_share"], other["overthinking_share"]]
    assert shares == pytest.approx([0.1137, 0.1398], abs=5e-5)
    # 200 thresholds find at least what the paper's readers know
    assert clean["criteria"]["entropy"]["equal_wer"]["avg_layer"] <= 11.08
    assert other["criteria"]["entropy"]["equal_wer"]["avg_layer"] <= 11.92
    assert all(other["wer"][k] > clean["wer"][k] for k in range(6))
    # per utterance there is overthinking, as fixed exits there is none
    clean, other = (report.overthinking.sets[key] for key in list(sets)[:2])
    assert clean.best_exit == other.best_exit == 6
    assert all(one.above_last.low > 0 for one in clean.exits[:-1])
    assert other.points_above_domain.low > 0


def test_console(report):
    text = console_tables(report)
    assert max(map(len, text.splitlines())) <= 100
    for word in ("clean", "other", "entropy", "oracle", "GMAC", "ins %"):
        assert word in text
    assert "kept at 3.33 of 6 layers, 0.67 of 1.20 GMAC" in text
    assert "33.3 % of the utterances" in text and "(2 word errors)" in text


def test_console_shows_overthinking_at_every_exit(report):
    lines = console_tables(report).splitlines()
    start = lines.index("Overthinking in over-clean:")
    assert [line.split("  ") for line in lines[start + 1 : start + 5]] == [
        ["reference", "", "", "", "", REF],
        ["layer 2, 4 errors", "one six"],
        ["layer 4, 0 errors", REF],
        ["layer 6, 2 errors", "one two <three> & five six"],
    ]


@pytest.mark.usefixtures("undrawn")
def test_small_models_have_more_decimals(tmp_path):
    trace = small_trace()
    header = replace(trace.header, macs=(10**8, 2 * 10**8, 3 * 10**8))
    small = write_report(Trace(header, trace.records), tmp_path, "small")
    assert "0.067 of 0.120 GMAC" in console_tables(small)
    assert ">0.067</td>" in (tmp_path / "report.html").read_text()
