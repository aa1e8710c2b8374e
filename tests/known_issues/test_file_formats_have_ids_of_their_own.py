"""Two kinds of file do not share an id.

Weights that averaged exits and means of combined criteria both called
themselves ``exit-combination/1``.

Authors
 * The speechbrain-ee contributors 2026
"""

import ast
from collections import Counter
from pathlib import Path

import speechbrain_ee


def test_no_two_modules_write_the_same_schema():
    found = Counter()
    for path in Path(speechbrain_ee.__file__).parent.rglob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.Assign) and "SCHEMA" in map(
                ast.unparse, node.targets
            ):
                found[ast.literal_eval(node.value)] += 1
    assert len(found) > 3 and {*found.values()} == {1}
