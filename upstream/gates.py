"""SpeechBrain's own checks, and how large a contribution may be.

Linters with the settings of its pre-commit hooks; docstrings; the table of
recipes against the files; keys of every YAML against its script.

Authors
 * The speechbrain-ee contributors 2026
"""

import ast
import csv
import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from speechbrain.utils.run_opts import RunOptions

ROOT = Path(__file__).resolve().parent.parent
TREE = ROOT / "upstream/tree"
TABLE = "tests/recipes/LibriSpeech.csv"
RECIPE = "recipes/LibriSpeech/ASR/early_exit"
COLUMNS = (
    "Task,Dataset,Script_file,Hparam_file,Data_prep_file,Readme_file,"
    "Result_url,HF_repo,test_debug_flags,test_debug_checks,performance"
).split(",")
PYTHON = (3, 8)  # SpeechBrain's python_requires
MOST_LINES, MOST_FILES = 2000, 10  # of Python, the padding fix included
PADDING = ROOT / "upstream/patches/conformer_padding"
PADDING_TEST = PADDING / "test_conformer_padding.py"
LINTERS = {
    "ruff check": ("*.py", "ruff check --no-cache --output-format=concise"),
    "ruff format": ("*.py", "ruff format --no-cache --check"),
    "yamllint": ("*.yaml", "yamllint --no-warnings -f parsable"),
    "codespell": ("*[!v]", "codespell_lib"),  # all but the table
}


def check_tree(root: Path, names: Sequence[str]) -> list[str]:
    """One line per problem that SpeechBrain's checks would find in files."""
    problems = [*linter_problems(root, names), *table_problems(root)]
    lengths = [len(PADDING_TEST.read_text(encoding="utf-8").splitlines())]
    for name in names:
        path = root / name
        if path.is_symlink():
            continue
        text = path.read_text(encoding="utf-8")
        if "speechbrain_ee" in text:
            problems.append(f"{name}: names speechbrain_ee")
        if re.search(r"[ \t]+$", text, re.MULTILINE) or text[-1:] != "\n":
            problems.append(f"{name}: spaces, or no newline, at an end")
        if path.suffix == ".py":
            lengths.append(text.count("\n"))
            tree = ast.parse(text, name, feature_version=PYTHON)
            found = docstring_problems(tree)
            problems += [f"{name}: {problem}" for problem in found]
    if sum(lengths) > MOST_LINES or len(lengths) > MOST_FILES:
        problems.append(
            f"{sum(lengths)} lines in {len(lengths)} files of Python; one "
            f"sitting is {MOST_LINES} in {MOST_FILES}"
        )
    return problems


def linter_problems(root: Path, names: Sequence[str]) -> Iterator[str]:
    """What ruff, yamllint and codespell say, line by line."""
    configs = {
        "ruff": ["--config", str(TREE / "ruff.toml")],
        "yamllint": ["-c", str(TREE / ".yamllint.yaml")],
    }
    for linter, (pattern, command) in LINTERS.items():
        words = command.split()
        files = [
            name
            for name in names
            if Path(name).match(pattern) and not (root / name).is_symlink()
        ]
        done = subprocess.run(
            [sys.executable, "-m", *words, *configs.get(words[0], []), *files],
            cwd=root,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            lines = (done.stdout + done.stderr).splitlines()
            yield from (f"{linter}: {line}" for line in lines if line.strip())


def docstring_problems(tree: ast.Module) -> Iterator[str]:
    """Definitions without docstring, as SpeechBrain's check sees them.

    It looks at modules, at every class, and at every function whose name has
    no underscore in front, at any depth.
    """
    if ast.get_docstring(tree) is None:
        yield "no docstring"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            if node.name.startswith("_"):
                continue
        elif not isinstance(node, ast.ClassDef):
            continue
        if ast.get_docstring(node) is None:
            yield f"{node.lineno}: {node.name} has no docstring"


def table_problems(root: Path) -> Iterator[str]:
    """Rows of the table of recipes against files, and keys of YAMLs."""
    with (root / TABLE).open(encoding="utf-8", newline="") as stream:
        table = list(csv.DictReader(stream))
    if list(table[0]) != COLUMNS:
        yield f"{TABLE}: columns {', '.join(table[0])}"
    rows = {
        row["Hparam_file"]: row
        for row in table
        if row["Script_file"] == f"{RECIPE}/train.py"
    }
    present = sorted((root / RECIPE / "hparams").glob("*.yaml"))
    if sorted(rows) != [path.relative_to(root).as_posix() for path in present]:
        yield f"{TABLE}: not one row for each YAML of {RECIPE}"
    options = {field.name for field in dataclasses.fields(RunOptions)}
    for name, row in rows.items():
        for column in COLUMNS[2:6]:
            path = root / row[column]
            if not (path.is_file() or path.is_symlink()):
                yield f"{name}: {column} {row[column]} does not exist"
        if not row["test_debug_flags"] or not row["test_debug_checks"]:
            yield f"{name}: no debug flags or no checks"
        script = (root / row["Script_file"]).read_text(encoding="utf-8")
        if (root / name).is_file():
            text = (root / name).read_text(encoding="utf-8")
            for key in unread_keys(text, script):
                if key not in options:
                    yield f"{name}: key {key} is not used in the script"


def unread_keys(yaml_text: str, script: str) -> list[str]:
    """Keys that SpeechBrain's check of YAMLs calls unused.

    A key counts as used where a later line refers to it, or where the script
    has it in brackets or after ``hparams.`` or ``modules.``. Keys built by
    ``!apply`` are not looked at.

    Example
    -------
    >>> unread_keys("a: 1\\nb: !ref <a>\\nc: !ref <d>\\nd: 2\\n", 'x["c"]')
    ['b', 'd']
    """
    keys: list[str] = []
    for line in yaml_text.splitlines():
        found = re.match(r"([A-Za-z_]\w*):", line)
        if found and "!!" not in line and "!apply" not in line:
            keys.append(found[1])
        if "!ref" in line and not line.startswith("#"):
            referred = set(re.findall(r"<(\w+)", line))
            keys = [key for key in keys if key not in referred]
    return [
        key
        for key in keys
        if f'["{key}"]' not in script
        and not re.search(rf"(?:hparams|modules)\.{key}", script)
    ]
