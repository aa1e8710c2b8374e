"""The study of several models: its numbers, and that the page has them.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.trace import (
    ExitRecord,
    Trace,
    TraceHeader,
    UtteranceRecord,
)
from speechbrain_ee.exits.trace_file import write_trace
from tests.test_benchmarks import load

LAYERS = (2, 4, 6)


@pytest.fixture(scope="module")
def benchmark(repository: Path) -> ModuleType:
    """The module benchmarks/overthinking.py."""
    return load(repository, "overthinking")


def write_set(path: Path, errors_NE: np.ndarray) -> Path:
    """Ten-word utterances; entropy falls from exit to exit."""
    records = tuple(
        UtteranceRecord(
            f"u{row}",
            path.name.partition(".")[0],
            " ".join("abcdefghij"),
            tuple(
                ExitRecord(layer, errors=int(e), evidence={"entropy": 1 / k})
                for k, (layer, e) in enumerate(zip(LAYERS, errors_E), 1)
            ),
        )
        for row, errors_E in enumerate(errors_NE)
    )
    trace = Trace(TraceHeader("model", "greedy", LAYERS), records)
    write_trace(path, trace.header, trace.records)
    return path


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """In domain the last exit is best for all, elsewhere the first."""
    folder = tmp_path_factory.mktemp("traces")
    near_NE, far_NE = np.tile([3, 2, 1], (20, 1)), np.tile([1, 2, 4], (20, 1))
    far_NE[:5] = 0
    return [
        write_set(folder / "near.jsonl.gz", near_NE),
        write_set(folder / "far.jsonl.gz", far_NE),
    ]


def test_facts_are_those_of_the_traces(benchmark, traces):
    found = benchmark.study(traces)
    assert (found["in_domain"], found["system"]) == ("near", "model")
    near, far = found["sets"]["near"], found["sets"]["far"]
    assert near["wer"] == [30, 20, 10] and far["wer"] == [7.5, 15, 30]
    assert near["overthought"] == [0, 0, 0]
    assert far["overthought"][0] == 75 and far["points"][0] == 22.5
    assert far["points_above_domain"][0] == 22.5
    assert far["errors_share"] == 75
    assert (near["best_layer"], far["best_layer"]) == (6, 2)
    assert far["best_above_last"][0] == -22.5
    assert far["domain_layer"] == 6 and far["domain_above_last"] == [0, 0, 0]
    assert near["domain_layer"] is None and near["thresholds"] is None
    # entropy lets all stop at one exit, and only the last keeps the rate
    entropy = far["thresholds"]["entropy"]
    assert entropy["layers_in_domain"] == entropy["layers"] == 6
    assert entropy["own_layers"] == 2


def test_studies_are_added(benchmark, traces, tmp_path, monkeypatch):
    result = tmp_path / "result.json"
    paths = list(map(str, traces))
    line = ["overthinking.py", "--result", str(result)]
    monkeypatch.setattr(sys, "argv", [*line, "--study", "a", *paths])
    benchmark.main()
    first = json.loads(result.read_text("utf-8"))["studies"]
    turned = ["--add", "--study", "b", *paths[::-1]]
    monkeypatch.setattr(sys, "argv", [*line, *turned])
    benchmark.main()
    studies = json.loads(result.read_text("utf-8"))["studies"]
    assert list(studies) == ["a", "b"] and studies["a"] == first["a"]
    assert studies["b"]["in_domain"] == "far"
    twice = ["--study", "a", *paths, "--study", "a", *paths]
    monkeypatch.setattr(sys, "argv", [*line, *twice])
    with pytest.raises(InputError, match="'a': give every name once"):
        benchmark.main()


def test_the_page_has_the_stored_tables(benchmark, repository):
    stored = json.loads(benchmark.RESULT.read_text("utf-8"))["studies"]
    page = (repository / "docs" / "overthinking.md").read_text("utf-8")
    for table in benchmark.tables(stored):
        assert table in page
    heading = "| model, decoding |"
    rows = [
        line for line in page.splitlines() if re.match(r"\| [\w-]+, ", line)
    ]
    made = "\n".join(benchmark.tables(stored)).splitlines()
    assert rows == [line for line in made if re.match(r"\| [\w-]+, ", line)]
    assert any(row.startswith(heading) for row in rows)
