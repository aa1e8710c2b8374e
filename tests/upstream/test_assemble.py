"""The assembled tree: the same every time, whole, and clean by their gates.

Authors
 * The speechbrain-ee contributors 2026
"""

import ast
import csv
import shutil
from pathlib import Path

import pytest

from speechbrain_ee.errors import InputError
from upstream.__main__ import main
from upstream.assemble import Assembled, assemble
from upstream.gates import (
    check_tree,
    docstring_problems,
    import_problems,
    table_problems,
)
from upstream.layout import INTEGRATION, LOBES, RECIPE, ROOT, TABLE, TESTS
from upstream.rewriting import rewrite


def test_speechbrains_gates_pass(assembled: Assembled) -> None:
    """Linters, names, docstrings, imports, table and keys: no problem."""
    assert check_tree(assembled.root) == []


def test_the_same_sources_give_the_same_tree(
    assembled: Assembled, tmp_path: Path
) -> None:
    """Byte for byte, and exactly the files that are announced."""
    again = assemble(tmp_path)
    assert again.files == assembled.files
    found = [path for path in again.root.rglob("*") if not path.is_dir()]
    names = sorted(path.relative_to(again.root).as_posix() for path in found)
    assert tuple(names) == again.files
    for name in names:
        if not (again.root / name).is_symlink():
            text = (again.root / name).read_bytes()
            assert text == (assembled.root / name).read_bytes(), name


def test_few_places(assembled: Assembled) -> None:
    """One lobe, one integration, one recipe, its tests and its rows."""
    places = (
        LOBES.replace(".", "/") + "/",
        INTEGRATION.replace(".", "/") + "/",
        RECIPE + "/",
        TESTS + "/",
        TABLE,
    )
    assert all(name.startswith(places) for name in assembled.files)
    for place in places:
        assert any(name.startswith(place) for name in assembled.files)


def test_lobes_need_no_integration(assembled: Assembled) -> None:
    """SpeechBrain's core does not import what needs other packages."""
    for path in (assembled.root / LOBES.replace(".", "/")).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not node.module.startswith("speechbrain.integrations")


def test_moved_code_is_the_same_code(assembled: Assembled) -> None:
    """Formatting aside: equal syntax trees, imports in any order."""

    def shape(text: str) -> tuple[str, list[str]]:
        tree = ast.parse(text)
        imports = (ast.Import, ast.ImportFrom)
        names = [
            f"{getattr(node, 'module', '')} {alias.name} {alias.asname}"
            for node in ast.walk(tree)
            if isinstance(node, imports)
            for alias in node.names
        ]
        tree.body = [
            node for node in tree.body if not isinstance(node, imports)
        ]
        return len(list(ast.walk(tree))), sorted(names)

    for name in ("models/masking", "exits/policy", "training/systems"):
        old = ROOT / f"speechbrain_ee/{name}.py"
        new = rewrite(f"speechbrain_ee/{name}.py")
        wanted = rewrite(old.read_text(encoding="utf-8"))
        text = (assembled.root / new).read_text(encoding="utf-8")
        assert shape(text) == shape(wanted)
        assert "Authors\n * The speechbrain-ee contributors" in text


def test_most_tests_go_along(assembled: Assembled) -> None:
    """What stays has a reason, and is not the rule."""
    moved = [name for name in assembled.files if "/test_" in name]
    assert len(moved) > 100
    assert len(assembled.left_out) < 0.25 * len(moved)
    assert "about this repository" in assembled.left_out["tests/test_docs.py"]
    for name, reason in assembled.left_out.items():
        assert (ROOT / name).is_file() and reason


def test_data_preparation_is_speechbrains(assembled: Assembled) -> None:
    """A link to the script that all recipes of the corpus share."""
    link = assembled.root / RECIPE / "librispeech_prepare.py"
    target = (link.parent / link.readlink()).resolve()
    shared = assembled.root / "recipes/LibriSpeech/librispeech_prepare.py"
    assert target == shared.resolve()


def test_command_line(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """``python -m upstream OUT`` says what it wrote and what stays."""
    monkeypatch.setattr("sys.argv", ["upstream", str(tmp_path / "new")])
    with caplog.at_level("INFO", logger="upstream"):
        main()
    assert (tmp_path / "new/speechbrain" / RECIPE / "train.py").is_file()
    assert "left out: tests/test_docs.py (about this" in caplog.text
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2


def test_an_older_tree_is_not_mixed_with_a_new_one(tmp_path: Path) -> None:
    """Files that are gone would stay."""
    (tmp_path / "speechbrain").mkdir()
    (tmp_path / "speechbrain/old.py").touch()
    with pytest.raises(InputError, match="not empty"):
        assemble(tmp_path)


def test_gate_of_docstrings() -> None:
    """SpeechBrain's rule: classes, and functions of one line, anywhere."""
    tree = ast.parse(
        '"""M."""\nclass _A:\n    def f(self):\n        pass\n'
        "def _g():\n    def h():\n        pass\n"
        "def typed() -> None:\n    pass\n"
    )
    found = {line.split()[1] for line in docstring_problems(tree)}
    assert found == {"_A", "f", "h"}
    assert list(docstring_problems(ast.parse("x = 1"))) == ["no docstring"]


@pytest.mark.parametrize(
    ("line", "good"),
    [
        (f"from {LOBES}.heads import CTCHeads", True),
        (f"from {LOBES} import heads", True),
        (f"import {INTEGRATION}.exits.policy", True),
        ("from speechbrain.nnet.CNN import Conv2d", True),
        ("import anything", True),
        (f"from {LOBES}.heads import NoSuchThing", False),
        (f"from {LOBES} import policy", False),
        (f"import {INTEGRATION}.models", False),
        ("import speechbrain.early_exit", False),
    ],
)
def test_gate_of_imports(assembled: Assembled, line: str, good: bool) -> None:
    """Modules that moved are found where they went, and only there."""
    problems = list(import_problems(assembled.root, ast.parse(line)))
    assert (problems == []) == good


def test_gate_of_the_table(assembled: Assembled, tmp_path: Path) -> None:
    """A system without row, a row without flags, a key that nobody reads."""
    root = tmp_path / "tree"
    shutil.copytree(
        assembled.root,
        root,
        symlinks=True,
        ignore=lambda folder, names: {"speechbrain"} & set(names),
    )
    assert list(table_problems(root)) == []
    hparams = root / RECIPE / "hparams"
    (hparams / "sweeps/mine").mkdir(parents=True)
    (hparams / "sweeps/mine/hpopt.yaml").write_text("a: 1\n")
    assert list(table_problems(root)) == []
    (hparams / "new.yaml").write_text("a: 1\n", encoding="utf-8")
    with (hparams / "digits.yaml").open("a", encoding="utf-8") as stream:
        stream.write("nobody_reads_this: 1\n")
    with (root / TABLE).open(encoding="utf-8", newline="") as stream:
        table = list(csv.DictReader(stream))
    table[0] |= {"test_debug_flags": "", "HF_repo": "https://x.org/model"}
    with (root / TABLE).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    found = "\n".join(table_problems(root))
    for words in ("new.yaml: 0 rows", "no debug flags", "https://x.org/model"):
        assert words in found
    assert found.count("\n") == 3 and "key nobody_reads_this" in found
