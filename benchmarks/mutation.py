"""Do the tests notice when a formula is broken? A mutation test.

Every mutant has one small mistake: a comparison off by its equality, minus
for plus, a constant one higher, a maximum for a minimum, a condition turned
round. The tests of its module must fail. A mutant that survives is a gap in
the tests or a change without effect; the stored result lists them all.

    python benchmarks/mutation.py --sample 150

No file is changed: a mutant lives in a forked process, whose import system
hands out the changed module. Libraries are loaded once, before the forks.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import ast
import copy
import importlib.machinery
import importlib.util
import os
import random
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy  # noqa: F401 loaded before the forks
import pytest
import scipy.stats  # noqa: F401 the same
import speechbrain  # noqa: F401 the same
from environment import describe, store
from hypothesis import Phase, settings
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
CALIBRATION = "calibration_properties calibration"
# Modules and the tests that speak of them, beside their own doctests.
TARGETS = {
    "exits/criteria/frames": "criteria measure_properties declared_costs",
    "exits/criteria/view": "criteria sequences measure_properties",
    "exits/criteria/sequences": "sequences measure_properties declared_costs",
    "exits/criteria/patience": "patience causality policy_rules",
    "exits/criteria/nbest": "nbest nbest_hypotheses declared_costs",
    "exits/criteria/attention": "attention_criteria",
    "exits/criteria/zscores": "zscores declared_costs",
    "exits/criteria/plausibility": "plausibility",
    "exits/criteria/baselines": "registry causality",
    "exits/policy": "policy properties policy_rules",
    "exits/calibration/budget": "budget calibration_properties",
    "exits/calibration/ladder": CALIBRATION,
    "exits/calibration/risk": "risk calibration_edges calibration",
    "exits/calibration/calibrate": f"calibration_edges {CALIBRATION}",
    "exits/calibration/shift": "shift calibration_properties",
    "training/losses": "losses attention_losses loss_properties",
    "training/distillation": "distillation loss_properties",
}
BOTH_WAYS = (
    "Lt LtE, Gt GtE, Eq NotEq, Is IsNot, In NotIn, Add Sub, Mult Div, "
    "BitAnd BitOr, And Or, min max, amin amax, minimum maximum, "
    "argmin argmax, any all, floor ceil, mean sum"
)
SWAPS = {"Pow": "Mult", "FloorDiv": "Div"}
for _pair in BOTH_WAYS.split(", "):
    _one, _other = _pair.split()
    SWAPS |= {_one: _other, _other: _one}


def path_of(module: str) -> Path:
    """File of a module, a key of ``TARGETS``."""
    return ROOT / "speechbrain_ee" / f"{module}.py"


def places(node: ast.AST) -> Iterator[ast.AST]:
    """What a module calculates with: no messages, no types, in order."""
    if isinstance(node, ast.Raise | ast.JoinedStr):
        return
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        return
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func).partition(".")[0]
        if called in ("dataclass", "logger"):
            return
    yield node
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and field not in (
                "annotation",
                "returns",
            ):
                yield from places(child)


def swapped(operator: ast.AST) -> ast.AST:
    """The operator that is taken for it by mistake."""
    name = type(operator).__name__
    return getattr(ast, SWAPS.get(name, name))()


def break_it(node: Any) -> bool:
    """Put a mistake into an expression; False if none fits."""
    match node:
        case ast.Compare():
            node.ops = [swapped(node.ops[0]), *node.ops[1:]]
        case ast.BinOp() | ast.AugAssign() | ast.BoolOp():
            before, node.op = node.op, swapped(node.op)
            return type(before) is not type(node.op)
        case ast.UnaryOp():  # twice is as if it were not there
            node.operand = ast.UnaryOp(node.op, node.operand)
        case ast.If() | ast.IfExp():
            node.test = ast.UnaryOp(ast.Not(), node.test)
        case ast.Constant(value=bool()):
            node.value = not node.value
        case ast.Constant(value=int() | float()):
            node.value += 1
        case ast.Attribute():
            before, node.attr = node.attr, SWAPS.get(node.attr, node.attr)
            return before != node.attr
        case ast.Name():
            before, node.id = node.id, SWAPS.get(node.id, node.id)
            return before != node.id
        case _:
            return False
    return True


def mutants(module: str) -> list[tuple[str, int]]:
    """All mutants of a module: its name and the number of the place."""
    tree = ast.parse(path_of(module).read_text(encoding="utf-8"))
    return [
        (module, number)
        for number, node in enumerate(places(tree))
        if break_it(copy.copy(node))
    ]


def broken(module: str, number: int) -> tuple[str, ast.Module]:
    """A mutant: what is wrong with it, and the whole module."""
    tree = ast.parse(path_of(module).read_text(encoding="utf-8"))
    node: Any = list(places(tree))[number]
    before = ast.unparse(getattr(node, "test", node))
    break_it(node)
    after = ast.unparse(getattr(node, "test", node))
    said = f"{module}.py:{node.lineno}: {before} -> {after}"
    return said, ast.fix_missing_locations(tree)


class Finder(importlib.machinery.PathFinder):
    """Hands out one changed module, whoever imports it."""

    def __init__(self, module: str, tree: ast.Module):
        self.name = f"speechbrain_ee.{module.replace('/', '.')}"
        self.path = str(path_of(module))
        self.tree = tree

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """See :class:`importlib.abc.MetaPathFinder`."""
        if name != self.name:
            return None
        loader = importlib.machinery.SourceFileLoader(name, self.path)
        loader.get_code = lambda _: compile(self.tree, self.path, "exec")
        return importlib.util.spec_from_file_location(
            name, self.path, loader=loader
        )


def run_tests(module: str, tree: ast.Module | None) -> int:
    """Run the tests of a module in this process; pytest's exit status."""
    os.setsid()  # a group of its own, so that its children end with it
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silent, stream)
    if tree is not None:
        sys.meta_path.insert(0, Finder(module, tree))
    # the same examples every time, and no search for the smallest failure
    settings.register_profile(
        "mutants",
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
    )
    settings.load_profile("mutants")
    room = ROOT / "tests" / module.partition("/")[0]
    files = [str(room / f"test_{name}.py") for name in TARGETS[module].split()]
    # plain: pytest would load a module with doctests past the finder
    options = ["-x", "-q", "-p", "no:cacheprovider", "--assert=plain"]
    return int(pytest.main([*options, *files, str(path_of(module))]))


def outcome(module: str, tree: ast.Module | None, limit_s: float) -> str:
    """What the tests say in a fork: passed, failed or timeout."""
    child = os.fork()
    if not child:
        status = 1
        try:
            status = run_tests(module, tree)
        finally:
            os._exit(status)
    end_s = time.monotonic() + limit_s
    try:
        while time.monotonic() < end_s:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return "failed" if status else "passed"
            time.sleep(0.05)
        return "timeout"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)


def try_all(
    chosen: list[tuple[str, int]],
    tables: dict[str, Counter[str]],
    survivors: list[str],
) -> None:
    """Run mutants one after the other; fill in what the tests say."""
    limits_s: dict[str, float] = {}
    for module, number in tqdm(chosen):
        if module not in limits_s:
            start_s = time.monotonic()
            if outcome(module, None, 600) != "passed":
                sys.exit(f"{module}: its tests fail without a mistake, too")
            limits_s[module] = 30 + 5 * (time.monotonic() - start_s)
        said, tree = broken(module, number)
        found = outcome(module, tree, limits_s[module])
        tables[module][found] += 1
        if found == "passed":
            survivors.append(said)
            tqdm.write(said)


def main() -> None:
    """Run mutants and store what the tests say."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("modules", nargs="*", help="default: all")
    parser.add_argument("--sample", type=int, help="mutants; default: all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--result", help="JSON file to write")
    options = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    named = options.modules or TARGETS
    every = [one for name in named for one in mutants(name)]
    count = min(options.sample or len(every), len(every))
    chosen = random.Random(options.seed).sample(every, count)
    tables: dict[str, Counter[str]] = defaultdict(Counter)
    survivors: list[str] = []
    with suppress(KeyboardInterrupt):  # what was tried until then counts
        try_all(chosen, tables, survivors)
    tried = sum(sum(table.values()) for table in tables.values())
    score = 1 - len(survivors) / max(tried, 1)
    print(f"{score:.1%} of {tried} mutants noticed")
    if options.result:
        result = {
            "command": f"benchmarks/mutation.py --sample {options.sample} "
            f"--seed {options.seed} {' '.join(options.modules)}".strip(),
            "environment": describe(),
            "mutants": len(every),
            "tried": tried,
            "score": round(score, 3),
            "modules": {name: dict(tables[name]) for name in sorted(tables)},
            "survivors": sorted(survivors),
        }
        store(options.result, result)


if __name__ == "__main__":
    main()
