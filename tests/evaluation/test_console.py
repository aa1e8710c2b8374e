"""The console: what a report prints.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import replace

import pytest

from speechbrain_ee.evaluation.report import console_tables, write_report
from speechbrain_ee.exits import Trace
from tests.evaluation.made_up import REF, small_trace


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(small_trace(), tmp_path_factory.mktemp("r"), "small")


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


def test_console_is_never_too_wide(tmp_path):
    trace = small_trace()
    names = (
        "max_prob_nonblank",
        "tsallis_min",
        "token_quantile_nonblank",
        "tsallis_min:alpha=0.25",
        "ctc_forward_per_frame",
    )
    for name in names:
        trace = trace.with_evidence(name, trace.evidence_NE("entropy"))
    long = replace(trace.records[0], ref="word " * 60)
    trace = Trace(trace.header, (long, *trace.records[1:]))
    text = console_tables(write_report(trace, tmp_path, "wide"))
    assert "alpha=0.25" in text
    assert max(map(len, text.splitlines())) <= 100


def test_small_models_have_more_decimals(tmp_path):
    trace = small_trace()
    header = replace(trace.header, macs=(10**8, 2 * 10**8, 3 * 10**8))
    small = write_report(Trace(header, trace.records), tmp_path, "small")
    assert "0.067 of 0.120 GMAC" in console_tables(small)
    assert ">0.067</td>" in (tmp_path / "report.html").read_text()
