"""Overthinking in a report: files, page, console, command.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import json
import re
from dataclasses import replace

import pytest

from speechbrain_ee.__main__ import main
from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.report import (
    console_tables,
    report_command,
    study_options,
    write_report,
)
from speechbrain_ee.exits import Trace, read_trace, write_trace
from tests.evaluation.made_up import made_up, small_trace
from tests.evaluation.test_overthinking import with_errors
from tests.evaluation.test_report import FILES, Checker

HEADING = '<h2 id="overthinking">Overthinking</h2>'
ADDED = {
    "overthinking.csv",
    "overthinking_thresholds.csv",
    "overthinking.png",
}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("overthinking")
    return write_report(
        small_trace(), folder, "t", overthinking=True, in_domain="other"
    )


def test_files(report):
    assert {p.name for p in report.folder.iterdir()} == FILES | ADDED
    data = json.loads((report.folder / "report.json").read_text())
    found = data["overthinking"]
    assert found["in_domain"] == "other"
    assert list(found["sets"]) == ["other", "clean"]
    clean = found["sets"]["clean"]
    assert clean["share"]["value"] == pytest.approx(1 / 3)
    assert clean["errors"] == 2 and clean["wer_oracle"] == 0
    # 4, 3 and 0 errors; 0 and 2; 0: exits make 7, 2 and 2, the earlier wins
    assert clean["best_exit"] == 2
    with open(report.folder / "overthinking.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["set"] for row in rows] == ["other", "clean"]
    assert rows[0]["points_above_domain"] == ""
    assert float(rows[1]["points_added"]) == clean["points"]["value"]
    name = "overthinking_thresholds.csv"
    with open(report.folder / name, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["criterion"] for row in rows} >= {"entropy", "agreement"}


def test_the_page_stands_alone(report):
    text = (report.folder / "report.html").read_text()
    checker = Checker()
    checker.feed(text)
    assert not checker.open
    assert all(link.startswith("#") for link in checker.links)
    body = text[text.index("<body>") :]
    names = re.findall(r'\bid="([^"]+)"', body)
    assert len(set(names)) == len(names)
    assert not re.search(r"#[0-9a-f]{6}\b", body)  # none fixed: dark pages
    assert HEADING in body
    assert "Thresholds of other on clean" in body


def test_without_the_option_nothing_changes(report, tmp_path):
    name = "overthinking.csv"
    (tmp_path / name).write_text("of an earlier report")
    plain = write_report(small_trace(), tmp_path, "t")
    assert {path.name for path in tmp_path.iterdir()} == FILES
    assert "overthinking" not in plain.data and plain.overthinking is None
    assert console_tables(report).startswith(console_tables(plain))
    page = (tmp_path / "report.html").read_text()
    assert HEADING not in page
    with_it = (report.folder / "report.html").read_text()
    with_it = with_it.replace('<a href="#overthinking">Overthinking</a>', "")
    start = with_it.index(HEADING)
    assert with_it[:start] == page[:start]


@pytest.mark.usefixtures("undrawn")
def test_console_is_never_too_wide(tmp_path):
    trace = small_trace()
    trace = trace.with_evidence(
        "tsallis_min:alpha=0.25", trace.evidence_NE("entropy")
    )
    traces = [
        Trace(replace(trace.header, decoding=way), trace.records)
        for way in ("lexicon beam 1500, N-best and a language model", "greedy")
    ]
    text = console_tables(
        write_report(traces, tmp_path, "t", overthinking=True)
    )
    assert "4: other, greedy" in text and "alpha=0.25" in text
    study = text[text.index("Overthinking; in domain") :]
    assert max(map(len, study.splitlines())) <= 100


@pytest.mark.usefixtures("undrawn")
def test_an_error_free_last_exit(tmp_path):
    perfect = with_errors(made_up(20, 5), lambda n: [*n[:-1], 0])
    trace = made_up(20, 6)
    other = [replace(row, set="perfect") for row in perfect.records]
    both = Trace(trace.header, (*trace.records, *other))
    report = write_report(both, tmp_path, "t", overthinking=True)
    found = report.overthinking.sets["perfect"]
    assert found.errors == 0 and found.carried[0].excess is None
    assert "nan" not in console_tables(report)


@pytest.mark.usefixtures("undrawn")
def test_without_evidence(tmp_path):
    trace = small_trace(evidence=False, macs=False)
    bare = Trace(
        trace.header,
        tuple(
            replace(
                row,
                exits=tuple(
                    replace(e, hyp=None, errors=int(n))
                    for e, n in zip(row.exits, counts)
                ),
            )
            for row, counts in zip(trace.records, trace.errors_NE)
        ),
    )
    report = write_report(bare, tmp_path, "t", overthinking=True)
    assert all(not s.carried for s in report.overthinking.sets.values())
    assert "Shift" not in console_tables(report)


@pytest.mark.usefixtures("undrawn")
def test_command(tmp_path, capsys):
    path = tmp_path / "t.jsonl.gz"
    write_trace(path, small_trace().header, small_trace().records)
    line = ["report", "--trace", str(path), "--out", str(tmp_path / "out")]
    main([*line, "--overthinking", "--in-domain", "other"])
    assert "Overthinking; in domain: other" in capsys.readouterr().out
    for wrong, said in (
        (["--overthinking", "--in-domain", "dev"], "clean; other"),
        (["--in-domain", "other"], "add --overthinking"),
    ):
        with pytest.raises(SystemExit) as stop:
            main([*line[:-1], str(tmp_path / "none"), *wrong])
        assert stop.value.code == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_same_trace_same_bytes(report, tmp_path):
    again = write_report(
        small_trace(), tmp_path, "t", overthinking=True, in_domain="other"
    )
    for name in FILES | ADDED:
        first = (report.folder / name).read_bytes()
        assert (again.folder / name).read_bytes() == first, name


def test_published_traces(shared_folder, tmp_path):
    path = shared_folder / "traces" / "wav2vec2-ee.greedy.jsonl.gz"
    data = json.loads(
        report_command([path], tmp_path, as_json=True, overthinking=True)
    )
    found = data["overthinking"]["sets"]
    clean, other = found["test-clean"], found["test-other"]
    shares = [clean["share"]["value"], other["share"]["value"]]
    assert shares == pytest.approx([0.1137, 0.1398], abs=5e-5)
    # per utterance there is overthinking, as fixed exits there is none
    assert clean["best_exit"] == other["best_exit"] == 6
    assert all(one["above_last"]["low"] > 0 for one in clean["exits"][:-1])
    assert other["points_above_domain"]["low"] > 0
    trace = read_trace(path)
    assert len(trace) == clean["utterances"] + other["utterances"]


@pytest.mark.parametrize(
    ("study", "domain", "message"),
    [
        (True, None, None),
        (True, "other", None),
        (False, None, None),
        (True, "dev", "no test set 'dev'; the test sets are clean, other"),
        (False, "other", "in_domain: 'other', but only .*overthinking=True"),
        ("other", None, "overthinking: 'other' must be True or False"),
        (None, None, "overthinking: None must be True or False"),
    ],
)
def test_options_of_a_yaml(study, domain, message):
    options = {"overthinking": study, "in_domain": domain}
    if message is None:
        assert study_options(options, ["clean", "other"]) == options
        return
    with pytest.raises(InputError, match=message):
        study_options(options, ["clean", "other"])
