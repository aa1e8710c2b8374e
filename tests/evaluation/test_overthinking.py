"""Overthinking: counts and intervals; files, page, console, command.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from speechbrain_ee.__main__ import main
from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.analysis import analyse
from speechbrain_ee.evaluation.curves import Estimate
from speechbrain_ee.evaluation.overthinking import (
    fixed_table,
    study_overthinking,
)
from speechbrain_ee.evaluation.report import (
    console_tables,
    page,
    study_options,
    write_report,
)
from speechbrain_ee.exits import Trace, write_trace
from tests.evaluation.made_up import made_up, small_trace
from tests.evaluation.test_report import FILES


def with_errors(trace, change):
    """The trace with other error counts: change(list) -> list."""
    records = []
    for row in trace.records:
        counts = change([exit_.errors for exit_ in row.exits])
        exits = (
            replace(e, errors=n) for e, n in zip(row.exits, counts, strict=True)
        )
        records.append(replace(row, exits=tuple(exits)))
    return Trace(trace.header, tuple(records))


def telling(seed):
    """A trace whose entropy tells something of the errors."""
    trace = made_up(80, seed)
    noise_NE = np.random.default_rng(seed).random(trace.errors_NE.shape)
    return trace.with_evidence("entropy", 0.1 * trace.errors_NE + noise_NE)


@pytest.fixture(scope="module")
def analyses():
    found = [analyse(telling(seed), f"set{seed}") for seed in (1, 2, 3)]
    return {each.key: each for each in found}


@pytest.fixture(scope="module")
def study(analyses):
    return study_overthinking(analyses, "set2")


def test_the_domain_stands_first(study, analyses):
    domain = study.sets["set2"]
    assert study.in_domain == "set2" and domain.points_above_domain is None
    for each in study.others:
        above = each.points_above_domain
        more = each.points.value - domain.points.value
        assert above.value == pytest.approx(more)
        assert above.low < above.value < above.high
        assert each.domain_exit == domain.best_exit
    assert list(study.sets) == ["set2", "set1", "set3"]
    assert [each.key for each in study.others] == ["set1", "set3"]
    assert study_overthinking(analyses).in_domain == "set1"
    with pytest.raises(InputError, match="'sat2'.*set1; set2; set3"):
        study_overthinking(analyses, "sat2")


def test_counts_are_those_of_a_loop(study, analyses):
    for key, found in study.sets.items():
        rows = [
            [exit_.errors for exit_ in record.exits]
            for record in analyses[key].trace.records
        ]
        words = sum(len(r.ref.split()) for r in analyses[key].trace.records)
        over = [row for row in rows if any(n < row[-1] for n in row)]
        added = sum(row[-1] - min(row) for row in rows)
        assert (found.words, found.errors) == (words, added)
        assert found.share.value == pytest.approx(len(over) / len(rows))
        assert found.points.value == pytest.approx(100 * added / words)
        last = found.exits[-1].wer
        assert last - found.wer_oracle == pytest.approx(found.points.value)
        assert found.errors_share == pytest.approx(
            added / sum(row[-1] for row in rows)
        )
        totals = [sum(column) for column in zip(*rows, strict=True)]
        assert found.best_exit == 1 + totals.index(min(totals))
        for k, one in enumerate(found.exits):
            better = sum(row[k] < row[-1] for row in rows)
            worse = sum(row[k] > row[-1] for row in rows)
            first = sum(row.index(min(row)) == k for row in rows)
            shares = (one.better_share, one.worse_share, one.best_share)
            assert shares == pytest.approx(
                [n / len(rows) for n in (better, worse, first)]
            )
            more = 100 * (totals[k] - totals[-1]) / words
            assert one.above_last.value == pytest.approx(more)
        layer = sum(2 * (1 + row.index(min(row))) for row in rows) / len(rows)
        assert found.best_layer == pytest.approx(layer)


def test_intervals_are_paired(study, analyses):
    """Percentiles of the difference, not differences of percentiles."""
    trace, found = analyses["set1"].trace, study.sets["set1"]
    draws = analyses["set1"].bootstrap
    drawn = [
        np.repeat(
            np.arange(len(trace)), weights_G[draws.clusters.label_N].astype(int)
        )
        for weights_G in draws.weights_BG
    ]
    more = []
    for rows in drawn:
        e, words = trace.errors_NE[rows], trace.words_N[rows].sum()
        more.append(100 * (e[:, 1] - e[:, -1]).sum() / words)
    low, high = np.percentile(more, draws.percentiles)
    assert found.exits[1].above_last.low == pytest.approx(low, abs=1e-8)
    assert found.exits[1].above_last.high == pytest.approx(high, abs=1e-8)
    assert found.exits[-1].above_last == Estimate(0.0, 0.0, 0.0)
    for each in study.sets.values():
        for one in (each.share, each.points):
            assert 0 < one.low < one.value < one.high


def test_groups_are_parts_of_the_set(study):
    for each in study.sets.values():
        for kind in ("length", "difficulty"):
            parts = [g for g in each.groups if g.kind == kind]
            assert sum(g.utterances for g in parts) == each.utterances
            assert sum(g.words for g in parts) == each.words
            errors = sum(g.points * g.words / 100 for g in parts)
            assert errors == pytest.approx(each.errors)
            over = sum(g.share * g.utterances for g in parts)
            assert over == pytest.approx(each.share.value * each.utterances)
        mean = [g.words / g.utterances for g in each.groups[:3]]
        assert mean == sorted(mean)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("last", [min, lambda errors: 0])
def test_a_last_exit_that_is_best_does_not_overthink(last, tmp_path):
    best = with_errors(made_up(40, 3), lambda n: [*n[:-1], last(n)])
    report = write_report(best, tmp_path, "t", overthinking=True)
    (found,) = report.overthinking.sets.values()
    assert found.share == found.points == Estimate(0.0, 0.0, 0.0)
    assert found.errors == 0 and found.errors_share == 0
    assert found.wer_oracle == pytest.approx(found.exits[-1].wer)
    assert found.best_exit == len(found.exits)
    assert "nan" not in console_tables(report)
    if not found.exits[-1].wer:
        assert found.carried[0].excess is None


def test_a_threshold_is_carried_as_it_is(study, analyses):
    point = analyses["set2"].criteria["entropy"].equal_wer
    assert point.avg_layer < 8
    for key, found in study.sets.items():
        (one,) = [c for c in found.carried if c.criterion == "entropy"]
        errors = layers = last = 0
        for record in analyses[key].trace.records:
            for exit_ in record.exits:
                if -exit_.evidence["entropy"] >= point.threshold:
                    break
            errors += exit_.errors
            layers += exit_.layer
            last += record.exits[-1].errors
        assert one.threshold == point.threshold
        assert one.domain_layer == point.avg_layer
        assert one.avg_layer == pytest.approx(layers / found.utterances)
        assert one.wer == pytest.approx(100 * errors / found.words)
        more = 100 * (errors - last) / found.words
        assert one.above_last.value == pytest.approx(more)
        assert one.excess == pytest.approx(100 * (errors / last - 1))
        own = analyses[key].criteria["entropy"].equal_wer
        assert one.own_layer == own.avg_layer


def test_shift_is_seen_where_there_is_one(analyses):
    trace = analyses["set1"].trace
    higher = trace.with_evidence("entropy", trace.evidence_NE("entropy") + 0.7)
    sets = {"set1": analyses["set1"], "set2": analyses["set2"]}
    sets["shifted"] = analyse(higher, "shifted")
    found = study_overthinking(sets).sets
    (same,), (alike,), (shifted,) = (found[key].carried for key in found)
    assert same.distance < 0.01 and same.warning is None
    assert alike.warning is None and alike.distance < 0.35
    assert shifted.distance > 0.5 and "less ready" in shifted.warning
    assert shifted.avg_layer > same.avg_layer


@pytest.mark.usefixtures("undrawn")
def test_other_exits_have_no_thresholds(analyses):
    shallow = analyse(made_up(30, 4, exits=3), "shallow")
    sets = {"set1": analyses["set1"], "shallow": shallow}
    found = study_overthinking(sets)
    assert found.sets["shallow"].carried == ()
    assert found.sets["shallow"].domain_exit is None
    assert fixed_table(found).rows[1][-3:] == ["", "", ""]
    text = page("t", sets, {}, {}, None, found)
    assert "Overthinking on shallow" in text and "Thresholds of" not in text


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
    for name in ("token_quantile_nonblank", "tsallis_min:alpha=0.25"):
        trace = trace.with_evidence(name, trace.evidence_NE("entropy"))
    long = replace(trace.records[0], ref="word " * 60)
    trace = Trace(trace.header, (long, *trace.records[1:]))
    traces = [
        Trace(replace(trace.header, decoding=way), trace.records)
        for way in ("lexicon beam 1500, N-best and a language model", "greedy")
    ]
    text = console_tables(
        write_report(traces, tmp_path, "t", overthinking=True)
    )
    assert "4: other, greedy" in text and "alpha=0.25" in text
    lines = [x for x in text.splitlines() if "; decoding: " not in x]
    assert max(map(len, lines)) <= 100


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
