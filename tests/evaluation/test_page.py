"""The page: the measured numbers, well-formed, nothing from elsewhere.

Authors
 * The speechbrain-ee contributors 2026
"""

import base64
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape, unescape
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile

from speechbrain_ee.evaluation.analysis import analyse_all, transfer_matrices
from speechbrain_ee.evaluation.curves import LEVELS
from speechbrain_ee.evaluation.report import nearby_sounds, page
from speechbrain_ee.evaluation.theme import label, leaders
from speechbrain_ee.exits import read_trace, write_trace
from tests.evaluation.made_up import drawn_sets, small_trace


@pytest.fixture(scope="module")
def sets():
    return drawn_sets()


@pytest.fixture(scope="module")
def matrices(sets):
    return transfer_matrices(list(sets.values()))


@pytest.fixture(scope="module")
def text(sets, matrices):
    return page("A & B", sets, {"epochs": 3}, matrices)


@pytest.fixture(scope="module")
def body(text):
    """The body as a tree: fails unless every tag is closed."""
    part = text[text.index("<body>") : text.index("</html>")]
    part = re.sub(r"(\s[\w-]+)=([^\s\"'>]+)(?=[\s>])", r'\1="\2"', part)
    part = part.replace("xlink:", "")
    return ElementTree.fromstring(part)


def rows_after(body, heading):
    """Texts of the cells of the first table after a heading."""
    elements = list(body.iter())
    start = next(
        i
        for i, e in enumerate(elements)
        if e.tag == "h3" and "".join(e.itertext()).startswith(heading)
    )
    table = next(e for e in elements[start:] if e.tag == "table")
    return [
        ["".join(cell.itertext()) for cell in row.iter("td")]
        for row in table.iter("tr")
        if row.find("td") is not None
    ]


def test_colours_are_the_style_sheets(text):
    # so that a dark page can replace them
    assert not re.search(r"#[0-9a-f]{6}\b", text[text.index("<body>") :])
    used = set(re.findall(r"var\((--[\w]+)\)", text))
    root = text[text.index(":root") : text.index("@media")]
    dark = text[text.index("@media") :]
    for name in used:
        assert f"{name}:" in root and f"{name}:" in dark


def test_every_criterion_with_all_levels(sets, body):
    analysis = sets["clean"]
    rows = rows_after(body, "Choosing the exit per utterance")
    assert [row[0] for row in rows] == [
        label(result.name) for result in analysis.results()
    ]
    for row, result in zip(rows, analysis.results(), strict=True):
        for cell, level in zip(row[1:5], LEVELS, strict=True):
            assert cell.startswith(f"{result.points[level].avg_layer:.2f}")
            if result.name in analysis.criteria:
                low, high = result.layer_intervals[level]
                assert cell.endswith(f"{low:.1f}–{high:.1f}")
        macs = result.points["equal_wer"].avg_macs
        assert row[5] == f"{macs / 1e9:.2f}"
        if result.name in analysis.criteria:
            share = f"{100 * result.gap_shares['plus_5']:.0f} %"
            assert row[8] == share.replace("-", "−")


def test_leaders_stand_out_and_say_what_they_are(sets, text):
    chosen = leaders(list(sets.values()))
    assert text.count('class="lead"') == sum(map(len, chosen.values()))
    assert "sum_t" in text and "2309.09546" in text
    widths = [float(w) for w in re.findall(r'"width:([\d.-]+)%', text)]
    assert min(widths) == 0 and max(widths) <= 100


@pytest.mark.usefixtures("undrawn")
def test_what_is_not_there_is_not_spoken_of(sets):
    """Policies, transfer; and a policy's criterion may be its own."""
    analysis = replace(sets["clean"], policies=())
    alone = page("t", {"clean": analysis}, {}, {})
    assert "Calibrated on one set" not in alone
    assert "policies" not in alone and ">policy<" not in alone
    policy = replace(sets["clean"].policies[0], criterion="homemade <one>")
    analysis = replace(analysis, policies=(policy,))
    text = page("t", {"clean": analysis}, {}, {})
    assert "</i>homemade &lt;one&gt;</td>" in text


def test_difficulty(sets, body):
    analysis = sets["clean"]
    best = analysis.choice()
    found = analysis.difficulty(best.result.name, best.point)
    rows = rows_after(body, "The same by difficulty")
    assert [row[0] for row in rows[:-1]] == [f"layer {x}" for x in (2, 4, 6, 8)]
    for column, row in enumerate(rows[:-1]):
        for group, cell in enumerate(row[1::2]):
            mine, ideal = found.shares[group], found.oracle_shares[group]
            assert cell == f"{100 * mine[column]:.0f} " + (
                f"/ {100 * ideal[column]:.0f} %"
            )
    assert rows[-1][1] == (
        f"{found.avg_layer[0]:.2f} / {found.oracle_avg_layer[0]:.2f}"
    )


def test_overthinking_is_counted_and_shown(sets, body, text):
    analysis = sets["clean"]
    rows = rows_after(body, "Overthinking")
    assert rows[0][1] == f"{100 * analysis.overthinking_share:.1f} %"
    last = int(analysis.trace.errors_NE[:, -1].sum())
    assert f"{analysis.overthinking_errors} of {last} word errors" in text
    shown = [e for e in analysis.examples if e.kind == "overthinking"]
    assert shown and all(e.record.id in text for e in shown)


def test_policies_and_what_they_warn_of(sets, body, text):
    [row] = rows_after(body, "Given policies")
    policy = sets["clean"].policies[0]
    assert row[:4] == ["my <policy>", "entropy", "wer=+5%", "yes"]
    assert row[4:] == [
        f"{policy.point.wer:.2f}",
        f"{policy.excess:+.1f} %",
        f"{policy.point.avg_layer:.2f}",
        f"{policy.point.avg_macs / 1e9:.2f}",
    ]
    assert text.count(escape("scores of exit 2 are <lower>")) == 2
    assert "<lower>" not in text and "<policy>" not in text


def test_transfer_is_tinted_by_whether_the_budget_holds(sets, matrices, text):
    part = text[text.index("Calibrated on one set") :]
    chosen = leaders(list(sets.values()))["clean"]
    cells = re.findall(
        r'<td style="background:rgba\((\d+),[\d,.]+\)">([+−][\d.]+) %'
        r' <span class="soft">([\d.]+) layers',
        part,
    )
    expected = [
        cell
        for name in chosen
        for row in matrices[name].values()
        for cell in row.values()
    ]
    assert len(cells) == len(expected) == 4 * len(chosen)
    for (red, excess, layers), cell in zip(cells, expected, strict=True):
        assert (red == "213") == (cell.excess > 5)
        assert excess == f"{cell.excess:+.1f}".replace("-", "−")
        assert layers == f"{cell.avg_layer:.2f}"
    assert any(red == "213" for red, _, _ in cells)


@pytest.fixture
def run_folder(tmp_path):
    """A run's trace, with a manifest and audio where runs have them."""
    trace = small_trace().subset("clean")
    path = tmp_path / "traces" / "clean.jsonl.gz"
    path.parent.mkdir()
    write_trace(path, trace.header, trace.records)
    tone = 0.1 * np.sin(np.arange(8000) / 5)
    soundfile.write(tmp_path / "easy.wav", tone, 8000)
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    rows = ("easy-clean,1.0,easy.wav", "hard-clean,1.0,broken.wav")
    rows += ("unknown,1.0,easy.wav",)
    text = "\n".join(row.replace(",1.0,", f",1.0,{tmp_path}/") for row in rows)
    (tmp_path / "clean.csv").write_text(f"ID,duration,wav\n{text}\n")
    return tmp_path


@pytest.mark.usefixtures("undrawn")
def test_an_utterance_is_played_where_its_audio_is_near(run_folder):
    trace = read_trace(run_folder / "traces" / "clean.jsonl.gz")
    sounds = nearby_sounds(analyse_all([trace])["clean"])
    assert list(sounds) == ["easy-clean"]
    kind, data = sounds["easy-clean"].split(";base64,")
    assert kind in ("data:audio/mpeg", "data:audio/flac")
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
    assert len(samples) / rate == pytest.approx(1.0, abs=0.15)
    assert np.abs(samples).max() == pytest.approx(0.1, abs=0.03)
    text = page("t", analyse_all([trace]), {}, {})
    assert text.count("<audio controls") == 1 and sounds["easy-clean"] in text
    (run_folder / "clean.csv").unlink()
    assert "<audio" not in page("t", analyse_all([trace]), {}, {})


# What a reader does: sorts by the third column, downwards; puts one criterion
# out of sight, brings another in; then writes down what is seen.
READER = """
<script>addEventListener("load", () => {
  const table = document.querySelector(".gaps table");
  const column = (place) =>
    [...table.tBodies[0].rows].map((row) => row.cells[place].innerText);
  const seen = (name) =>
    [...document.querySelectorAll(`svg [data-series="${name}"]`)]
      .filter((drawn) => getComputedStyle(drawn).display !== "none").length;
  const box = (name) =>
    document.querySelector(`.keys input[value="${name}"]`);
  const said = { before: column(0) };
  said.shown = seen("entropy");
  said.hidden = seen("entropy_nonblank");
  box("entropy").click();
  box("entropy_nonblank").click();
  said.after = [seen("entropy"), seen("entropy_nonblank")];
  said.bold = [...table.querySelectorAll("tr.lead")].map(
    (row) => row.dataset.series);
  const head = table.querySelectorAll("thead tr:last-child th")[2];
  head.click();
  said.up = column(2);
  head.click();
  said.down = column(2);
  said.sort = head.ariaSort;
  head.click();
  said.again = column(0);
  const out = document.createElement("pre");
  out.id = "said";
  out.textContent = JSON.stringify(said);
  document.body.append(out);
});</script>
"""


def test_a_reader_sorts_a_table_and_switches_criteria(sets, text, tmp_path):
    said = json.loads(in_browser(text + READER, tmp_path))
    analysis = sets["clean"]
    assert said["before"] == [label(r.name) for r in analysis.results()]
    # four panels; a line in each, and band and mark of the two best
    assert said["shown"] >= 4 and said["hidden"] == 0
    assert said["after"][0] == 0 and said["after"][1] >= 4
    assert "entropy" not in said["bold"]
    assert "entropy_nonblank" in said["bold"]
    up = [float(re.match(r"[\d.]+", cell)[0]) for cell in said["up"]]
    down = [float(re.match(r"[\d.]+", cell)[0]) for cell in said["down"]]
    assert up == sorted(up) and down == sorted(down, reverse=True)
    assert up[0] < up[-1] and said["sort"] == "descending"
    assert said["again"] == said["before"]


def in_browser(text: str, folder: Path) -> str:
    """What a page in headless Chromium writes into an element ``said``."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed")
    (folder / "page.html").write_text(text, "utf-8")
    switches = "headless no-sandbox disable-gpu disable-quic no-first-run"
    switches += " disable-background-networking disable-component-update"
    switches += " disable-sync disable-dev-shm-usage dump-dom"
    run = subprocess.run(
        [
            chromium,
            *(f"--{switch}" for switch in switches.split()),
            "--virtual-time-budget=5000",
            f"--user-data-dir={folder / 'profile'}",
            (folder / "page.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = re.search(r'<pre id="said">(.*?)</pre>', run.stdout)
    assert found, run.stderr[-2000:]
    return unescape(found[1])
