"""The command line: what it refuses, and that it hands on what it is told.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from speechbrain_ee.__main__ import EXAMPLES, ROOMS, _parser, main
from speechbrain_ee.exits.calibration.policy_file import read_policy
from speechbrain_ee.exits.selector.selector_file import read_selector
from speechbrain_ee.exits.trace import (
    ExitRecord,
    TraceHeader,
    UtteranceRecord,
)
from speechbrain_ee.exits.trace_file import write_trace
from tests.spoken import spoken, texts


@pytest.fixture
def trace_file(tmp_path: Path) -> Path:
    """A trace of two utterances and two exits."""
    records = [
        UtteranceRecord(
            f"utterance-{number}",
            "some-set",
            "one two",
            (
                ExitRecord(2, "one", evidence={"entropy": 0.3}),
                ExitRecord(4, "one two", evidence={"entropy": 0.1}),
            ),
        )
        for number in range(2)
    ]
    path = tmp_path / "trace.jsonl.gz"
    write_trace(path, TraceHeader("a model", "greedy", (2, 4)), records)
    return path


def test_report_prints_tables_and_writes_files(trace_file, tmp_path, capsys):
    out = tmp_path / "report"
    main(["report", "--trace", str(trace_file), "--out", str(out)])
    shown = capsys.readouterr().out
    assert "some-set" in shown and "oracle" in shown
    assert (out / "report.html").is_file()
    stored = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert stored["sets"]["some-set"]["wer"] == [50.0, 0.0]


def test_wrong_input_is_a_paragraph_and_status_2(tmp_path, capsys):
    missing = tmp_path / "missing.jsonl.gz"
    with pytest.raises(SystemExit) as stop:
        main(["report", "--trace", str(missing), "--out", str(tmp_path)])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "missing.jsonl.gz" in error and "Traceback" not in error


@pytest.mark.parametrize(
    "arguments",
    [[], ["no-such-command"], ["report"], ["learn"], ["calibrate"]],
)
def test_usage_errors(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with traces and training transcripts."""
    traces = {
        "dev": spoken(),
        "test": spoken(40, 9, name="test"),
        "other": spoken(40, 9, layers=(3, 5, 7)),
        "few": spoken(4),
    }
    for name, trace in traces.items():
        path = tmp_path / f"{name}.jsonl"
        write_trace(path, trace.header, trace.records)
    dev = traces["dev"]
    scored = dev.with_evidence("learned", -dev.evidence_NE("entropy"))
    write_trace(tmp_path / "scored.jsonl", dev.header, scored.records)
    (tmp_path / "train.txt").write_text("\n".join(texts()), "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


LEARN = "learn --trace dev.jsonl --texts train.txt --out made"
CALIBRATE = (
    "calibrate --trace made/dev.jsonl --criterion learned "
    "--selector made/exit_selector.json.gz --budget wer=+10% --method naive "
    "--out p.yaml"
)
SCORED = CALIBRATE.replace("made/dev.jsonl", "scored.jsonl")
REPORT = "report --trace test.jsonl --policy p.yaml --out report --json"


def refused(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The paragraph that a wrong command line is answered with."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(line.split())
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error
    return error


def test_learn_calibrate_report(folder, capsys):
    """From a development trace to decisions on a test trace."""
    main(LEARN.split())
    assert "made/exit_selector.json.gz" in capsys.readouterr().out
    main(CALIBRATE.split())
    assert "p.yaml" in capsys.readouterr().out
    main(REPORT.split())
    data = json.loads(capsys.readouterr().out)
    (measured,) = data["sets"]["test"]["policies"]
    assert measured["name"] == "learned, wer=+10% (naive)"
    # the same by hand, from the files
    policy = read_policy("p.yaml")
    assert policy.selector == "made/exit_selector.json.gz"
    test = spoken(40, 9, name="test")
    scores_NE = read_selector(policy.selector).scores(test.evidence)
    shares = np.bincount(policy.choose(scores_NE), minlength=3) / 40
    assert measured["exit_shares"] == pytest.approx(shares, abs=1e-3)
    assert 0 < shares[-1] < 1
    # a model with other exits needs a policy of its own
    error = refused(REPORT.replace("test.jsonl", "other.jsonl"), capsys)
    assert "[2, 4, 6]" in error and "[3, 5, 7]" in error
    (folder / "made" / "exit_selector.json.gz").unlink()
    assert "exit_selector.json.gz" in refused(REPORT, capsys)


@pytest.mark.parametrize(
    ("line", "change", "said"),
    [
        (SCORED, ("learned", "leaned"), "valid criteria: "),
        (SCORED, ("wer=+10%", "wer=10%"), "wer=+5%"),
        (SCORED, ("naive", "native"), "naive, crc, ltt"),
        (SCORED, ("scored", "none"), "none.jsonl"),
        # not through `learn`, so without its scores
        (SCORED, ("scored", "dev"), "learned"),
        (LEARN, ("dev.jsonl", "none.jsonl"), "none.jsonl"),
        (LEARN, ("train.txt", "none.txt"), "none.txt"),
        (LEARN, ("--out made", "--out ."), "choose another folder"),
        (LEARN, ("dev.jsonl", "few.jsonl"), "few.jsonl: 4 utterances"),
        (REPORT, ("p.yaml", "none.yaml"), "none.yaml"),
    ],
)
def test_wrong_values_are_refused(folder, capsys, line, change, said):
    """With what is valid, or the file that is meant; nothing is written."""
    before = sorted(folder.rglob("*"))
    wrong = line.replace(*change)
    assert wrong != line
    assert said in refused(wrong, capsys)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("name", sorted(ROOMS))
def test_commands_of_the_rooms_say_what_they_take(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert ROOMS[name][1].split()[0] in shown
    told = {"--policy", "--out", "--study-folder", "--shard-size-mb"}
    assert told & set(shown.split())


def test_what_was_not_chosen_is_not_imported(repository):
    """Help is there at once: torch takes seconds to import."""
    program = (
        "import sys\n"
        "from speechbrain_ee.__main__ import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "finally:\n"
        "    assert 'torch' not in sys.modules\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    for name in ROOMS:
        assert name in run.stdout


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_help_explains_every_option_and_ends_with_an_example(name):
    """Which is parsed as if it was run."""
    (commands,) = _parser(name)._subparsers._group_actions
    parser = commands.choices[name]
    assert [a.dest for a in parser._actions if not a.help] == []
    *_, heading, example = parser.format_help().rstrip().splitlines()
    assert heading == "Example:"
    program, *words = example.split()
    assert program == "speechbrain-ee" and words[0] == name
    _parser(name).parse_args(words)


def test_a_device_without_torch_is_told_so(monkeypatch, capsys):
    """In one paragraph: the installation for graphs has only the host."""
    missing = {"transcribe": ("no_such_package.command", "text from audio")}
    monkeypatch.setattr("speechbrain_ee.__main__.ROOMS", ROOMS | missing)
    error = refused("transcribe talk.wav --model folder", capsys)
    assert "transcribe: the package no_such_package is not installed" in error
