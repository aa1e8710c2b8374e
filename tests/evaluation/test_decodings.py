"""Ways of decoding side by side, and criteria that need a search.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import json
from dataclasses import replace

import jiwer
import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.analysis import analyse
from speechbrain_ee.evaluation.report import (
    console_tables,
    page,
    report_command,
    say,
    write_report,
)
from speechbrain_ee.evaluation.tables import (
    by_decoding,
    compare_decodings,
    decoding_table,
    exit_table,
)
from speechbrain_ee.evaluation.theme import family, leaders
from speechbrain_ee.exits import Trace, write_trace
from tests.evaluation.made_up import HYPS, REF, small_trace

# What a search at each exit takes, of the 0.4, 0.8, 1.2 GMAC of the exits.
SEARCH = (10**8, 2 * 10**8, 3 * 10**8)
CRITERIA = (
    "beam_score",
    "beam_posterior",
    "token_confidence",
    "token_confidence_min",
)


def decoded_by(decoding, search=SEARCH, change=None):
    """The set "clean" as a way of decoding makes it.

    Where there is a search, its criteria know the errors and entropy nothing.
    """
    trace = small_trace().subset("clean")
    records = []
    for row in trace.records:
        exits = []
        for k, exit_ in enumerate(row.exits):
            hyp = change(k, exit_.hyp) if change else exit_.hyp
            known = dict(exit_.evidence)
            if search:
                rate = jiwer.wer(REF, hyp)
                known = {"entropy": 0.5} | dict.fromkeys(CRITERIA, -rate)
            spent = 4 * 10**8 * (k + 1)
            exits.append(
                replace(
                    exit_,
                    hyp=hyp,
                    evidence=known,
                    macs=spent + (search[k] if search else 0),
                    decoding_macs=search[k] if search else None,
                    greedy=exit_.hyp if search else None,
                )
            )
        records.append(replace(row, exits=tuple(exits)))
    header = replace(trace.header, decoding=decoding)
    return Trace(header, tuple(records), decoding)


def ways():
    def first_right(k, hyp):
        return REF if k == 0 else hyp

    return (
        decoded_by("joint", change=first_right),
        decoded_by("rescoring"),
        decoded_by("greedy", None),
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ways")
    main, *others = ways()
    return write_report(main, folder, "t", decoded={"clean": (main, *others)})


def test_json_holds_every_way(report):
    data = json.loads((report.folder / "report.json").read_text())
    found = data["decodings"]["clean"]
    assert list(found) == ["greedy", "joint", "rescoring"]
    hyps = [[HYPS[name][k] for name in HYPS] for k in range(3)]
    rates = [100 * jiwer.wer([REF] * 3, each) for each in hyps]
    assert found["greedy"]["wer"] == pytest.approx(rates)
    assert found["joint"]["wer"] == pytest.approx([0.0, *rates[1:]])
    assert found["greedy"]["decoding_macs"] is None
    assert found["joint"]["decoding_macs"] == list(SEARCH)
    assert found["joint"]["avg_macs"] == [5e8, 10e8, 15e8]
    # the rest of the report is on the first trace
    assert data["sets"]["clean"]["wer"] == pytest.approx(found["joint"]["wer"])


def test_csv_console_and_page(report):
    with open(report.folder / "decodings.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(r["decoding"], r["exit"], r["layer"]) for r in rows] == [
        (way, str(k), str(2 * k))
        for way in ("greedy", "joint", "rescoring")
        for k in (1, 2, 3)
    ]
    assert [r["decoding_macs"] for r in rows[:3]] == ["", "", ""]
    assert [float(r["decoding_macs"]) for r in rows[3:6]] == list(SEARCH)
    assert [r["parameters"] for r in rows[:3]] == ["10", "20", "30"]
    (comparison,) = report.decodings.values()
    table = decoding_table(comparison)
    heading, rows = table.heading, table.rows
    assert heading[2:5] == ["WER %: CTC greedy", "joint", "rescoring"]
    assert rows[0][3] == "0.00" and rows[0][2] == rows[0][4] != "0.00"
    assert rows[-2][:5] == ["GMAC of decoding", "", "", "0.30", "0.30"]
    assert rows[-1][:5] == ["GMAC in all", "", "1.20", "1.50", "1.50"]
    text = console_tables(report)
    assert table.text() in text
    assert "3 utterances, 18 words; decoding: joint" in text
    page = (report.folder / "report.html").read_text()
    part = page[page.index("Ways of decoding: clean") :]
    part = part[: part.index("</table>")]
    # all three are equal after the first exit, where joint wins
    assert part.count("<b>") == 1 + 3 + 3 and "<b>0.00</b>" in part
    assert "words; decoding: joint</p>" in page


def test_five_ways_fit_the_console_in_any_order_of_utterances():
    names = ("joint", "rescoring", "attention", "ctc_beam")
    traces = [decoded_by(name) for name in names] + [decoded_by("greedy", None)]
    (found,) = compare_decodings({"clean": traces}).values()
    order = ["greedy", "ctc_beam", "attention", "joint", "rescoring"]
    assert [*found.results] == order
    assert max(map(len, decoding_table(found).text().splitlines())) <= 100
    traces[1:] = [trace.select([2, 0, 1]) for trace in traces[1:]]
    assert compare_decodings({"clean": traces}) == {"clean": found}


def test_without_costs_there_are_no_cost_rows():
    bare = []
    for name in ("greedy", "beam"):
        trace = decoded_by(name, None)
        header = replace(trace.header, macs=None, parameters=None)
        records = [
            replace(r, exits=tuple(replace(e, macs=None) for e in r.exits))
            for r in trace.records
        ]
        bare.append(Trace(header, tuple(records)))
    (found,) = compare_decodings({"clean": bare}).values()
    table = decoding_table(found)
    assert [row[0] for row in table.rows] == ["1", "2", "3"]
    assert len(table.heading) == 4 and say("decoding_note", found) == ""


def test_one_way_is_no_comparison(tmp_path, undrawn):
    main = ways()[0]
    assert compare_decodings({"clean": (main,)}) == {}
    (tmp_path / "decodings.csv").write_text("of an earlier report")
    report = write_report(main, tmp_path, "t", decoded={"clean": (main,)})
    assert "decodings" not in report.data
    assert not (tmp_path / "decodings.csv").exists()
    assert "ways of decoding" not in console_tables(report)


def test_traces_must_fit():
    main, other, _ = ways()
    shorter = other.select([0, 1])
    with pytest.raises(InputError, match="other exits or utterances"):
        compare_decodings({"clean": (main, shorter)})
    with pytest.raises(InputError, match="not all different"):
        compare_decodings({"clean": (main, main)})


def test_command_compares_traces_that_tell_their_cost(tmp_path, undrawn):
    paths = []
    for trace in ways()[::2]:
        paths.append(tmp_path / f"{trace.header.decoding}.jsonl.gz")
        write_trace(paths[-1], trace.header, trace.records)
    text = report_command(paths, tmp_path / "out")
    assert "clean, joint: 3 utterances" in text
    assert "clean, greedy: 3 utterances, 18 words\n" in text
    assert "clean: ways of decoding" in text


def test_traces_are_grouped_by_set_and_model():
    main, other, greedy = ways()
    foreign = Trace(replace(other.header, name="two"), other.records)
    groups = by_decoding([main, foreign, greedy])
    names = {k: [t.header.decoding for t in g] for k, g in groups.items()}
    model = main.header.name
    assert names == {
        f"clean, {model}": ["joint", "greedy"],
        "clean, two": ["rescoring"],
    }
    assert by_decoding([small_trace()]) == {}


def test_exits_tell_their_cost_with_and_without_decoding():
    table = exit_table(analyse(ways()[0]))
    assert table.heading[-2:] == [
        "no decoding: GMAC/10 s",
        "with decoding: GMAC/utterance",
    ]
    assert [row[-2:] for row in table.rows] == [
        ["1.00", "0.50"],
        ["2.00", "1.00"],
        ["3.00", "1.50"],
    ]
    assert exit_table(analyse(ways()[2])).heading[-1] == "GMAC/10 s"


@pytest.mark.usefixtures("undrawn")
def test_criteria_that_need_a_search_can_be_told():
    assert {family(name) for name in CRITERIA} == {"attention decoder"}
    searched, plain = analyse(ways()[1]), analyse(ways()[2])
    note = say("search_note", searched)
    assert "attention beam score, attention beam posterior" in note
    assert "Layers do not count it; GMAC do." in note
    assert say("search_note", plain) == ""
    leading = leaders([searched])["clean"]
    assert [n for n in leading if family(n) == "attention decoder"]
    text = page("t", {"clean": searched}, {}, {})
    assert note in text and "leaves a GMAC panel" in text
    assert "leaves a GMAC panel" not in page("t", {"clean": plain}, {}, {})


@pytest.mark.parametrize("dear", [True, False])
def test_summary_says_when_layers_flatter(dear):
    search = (10**9, 2 * 10**9, 10**9) if dear else (10, 10, 10)
    analysis = analyse(decoded_by("joint", search))
    best = analysis.choice().result
    assert best.name == "beam_score"
    text = say("summary", analysis)
    assert ("Layers flatter attention beam score" in text) == dear
    assert ("the cheapest of the criteria" in text) == (not dear)
    if dear:
        # the last exit alone takes 1.2 and 1.0 GMAC; the search at each exit
        # passed makes the criterion dearer though it needs fewer layers
        macs = {
            name: result.equal_wer.avg_macs
            for name, result in analysis.criteria.items()
            if result.equal_wer
        } | {
            "fixed": analysis.fixed.equal_wer.avg_macs,
            "mixture": analysis.mixture.equal_wer.avg_macs,
        }
        assert min(macs.values()) < macs["beam_score"]
        assert f"{min(macs.values()) / 1e9:.2f} at" in text
