"""Mutants differ from the code in one place, and none is a mistake of text.

Authors
 * The speechbrain-ee contributors 2026
"""

import ast
import difflib
from pathlib import Path
from types import ModuleType

import pytest

from tests.test_benchmarks import load

SOURCE = '''
"""Add 1."""
if TYPE_CHECKING:
    from torch import Tensor
SIZE: Literal[3] = 5

@dataclass(frozen=True)
def f(a: Tensor, b=True) -> Annotated[int, 7]:
    """Below 2."""
    if a < SIZE and not b:
        raise ValueError(f"{a + 1} is below {SIZE}")
    logger.info("%d", a + 1)
    return -a.min(1) + max(a, 2)
'''
WRONG = [
    "SIZE: Literal[3] = 6",
    "def f(a: Tensor, b=False) -> Annotated[int, 7]:",
    "if not (a < SIZE and (not b)):",
    "if a < SIZE or not b:",
    "if a <= SIZE and (not b):",
    "if a < SIZE and (not not b):",
    "return -a.min(1) - max(a, 2)",
    "return --a.min(1) + max(a, 2)",
    "return -a.max(1) + max(a, 2)",
    "return -a.min(2) + max(a, 2)",
    "return -a.min(1) + min(a, 2)",
    "return -a.min(1) + max(a, 3)",
]


@pytest.fixture(scope="module")
def mutation(repository: Path) -> ModuleType:
    """The module benchmarks/mutation.py."""
    return load(repository, "mutation")


def test_every_mistake_there_is(mutation, tmp_path, monkeypatch):
    path = tmp_path / "module.py"
    path.write_text(SOURCE, encoding="utf-8")
    monkeypatch.setattr(mutation, "path_of", lambda module: path)
    right = ast.unparse(ast.parse(SOURCE)).splitlines()
    wrong = []
    for mutant in mutation.mutants("module"):
        said, tree = mutation.broken(*mutant)
        compile(tree, "module", "exec")
        changed = difflib.ndiff(right, ast.unparse(tree).splitlines())
        added = [line[2:].strip() for line in changed if line[0] == "+"]
        assert len(added) == 1 and said.startswith("module.py:")
        wrong += added
    assert sorted(wrong) == sorted(WRONG)


def test_targets_and_their_tests_exist(mutation, repository):
    for module, names in mutation.TARGETS.items():
        assert mutation.path_of(module).is_file()
        room = repository / "tests" / module.partition("/")[0]
        for name in names.split():
            assert (room / f"test_{name}.py").is_file()
