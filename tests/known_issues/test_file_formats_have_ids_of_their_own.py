"""Two kinds of file do not share an id; files of before are still read.

Weights that average exits and means of combined criteria both called
themselves ``exit-combination/1``.

Authors
 * The speechbrain-ee contributors 2026
"""

import ast
import json
from collections import Counter
from pathlib import Path

import speechbrain_ee
from speechbrain_ee.exits.criteria.zscores import ZScores
from speechbrain_ee.exits.ensemble.ensemble import ExitCombination
from speechbrain_ee.inference.folder import combination_file


def test_no_two_modules_write_the_same_schema():
    found = Counter()
    for path in Path(speechbrain_ee.__file__).parent.rglob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.Assign) and "SCHEMA" in map(
                ast.unparse, node.targets
            ):
                found[ast.literal_eval(node.value)] += 1
    assert len(found) > 3 and {*found.values()} == {1}


def test_files_of_before_are_read(tmp_path):
    """Both kinds, which share an id."""
    path = tmp_path / "file.json"
    weights = ExitCombination(((1.0,), (0.25, 0.75)))
    weights.save(path)
    content = json.loads(path.read_text("utf-8"))
    assert content["schema"] == "exit-weights/1"
    path.write_text(json.dumps(content | {"schema": "exit-combination/1"}))
    assert ExitCombination.load(path) == weights
    scores = ZScores({"entropy": 1.0}, {"entropy": 0.0}, {"entropy": 1.0})
    combination_file.write_combination(path, scores)
    assert json.loads(path.read_text())["schema"] == "exit-combination/1"
    assert combination_file.read_combination(path) == scores
