"""The documentation names what there is.

Every link leads somewhere; every command, option, YAML and make target exists;
Python imports what there is; the examples shown are those that are tested.

Authors
 * The speechbrain-ee contributors 2026
"""

import ast
import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from speechbrain_ee import __version__
from speechbrain_ee.__main__ import _parser
from speechbrain_ee.exits.criteria import (
    criterion_names,
    get_criterion,
    measure_names,
)
from speechbrain_ee.training.options import BRAIN_KEYS, OPTIONAL_KEYS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
RECIPES = sorted((ROOT / "recipes").glob("*/*/"))
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")]) + sorted(
    ROOT.glob("recipes/*/*/README.md")
)
NAMES = {page: page.relative_to(ROOT).as_posix() for page in PAGES}
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=NAMES.get)
# Options of SpeechBrain's own command line, and of pytest's.
OF_SPEECHBRAIN = {"debug", "device", "precision", "noprogressbar", "tqdm"}


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in a language; "" for commands."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
    return [code for kind, code in found if kind == language]


def commands(page: Path, in_prose: bool = False) -> Iterator[list[str]]:
    """Command lines of a page as words: one per program of a pipe."""
    text = page.read_text(encoding="utf-8")
    lines = blocks(page, "") + blocks(page, "bash")
    if in_prose:
        lines = re.findall(
            r"`((?:python|make|torchrun|speechbrain-ee) [^`]+)`", text
        )
        lines = [" ".join(line.split()) for line in lines]
    for block in lines:
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            line = re.sub(r"\s#\s.*|<[^>]*>", "", line)
            for command in re.split(r"\s(?:\||&&)\s", line):
                try:
                    words = shlex.split(command)
                except ValueError:  # a table or a sentence with an apostrophe
                    continue
                while words and re.match(r"[A-Z_]+=", words[0]):
                    words = words[1:]
                if words:
                    yield words


def test_there_is_something_to_check():
    """The search for commands finds them."""
    quick = [" ".join(words) for words in commands(DOCS / "quick-start.md")]
    assert "make demo" in quick
    assert sum(command.startswith("speechbrain-ee") for command in quick) >= 3
    assert len(blocks(DOCS / "extending.md", "python")) == 5


def test_every_row_describes_a_criterion():
    """No name in the table of criteria has gone; none is there twice."""
    page = (DOCS / "exit-selection.md").read_text(encoding="utf-8")
    table = page.split("## Criteria")[1].split("\nRules")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    named = [
        name
        for row in rows
        for name in re.findall(r"`(\w+)`", row.split("|")[1])
    ]
    assert len(named) > 20
    assert {*named} <= {*criterion_names()}
    assert len(named) == len({*named})


@EVERY_PAGE
def test_links_lead_somewhere(page):
    """Every relative link and image is a file, every anchor a heading."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path = page.parent / target if target else page
        assert path.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(path), f"{page.name}: {target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """The anchors that a code host gives the headings of a page."""
    text = page.read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.*)$", text, flags=re.M)
    plain = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return {title.strip().replace(" ", "-") for title in plain}


def test_every_page_is_in_the_index():
    """And every figure on some page."""
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    shown = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for page in DOCS.glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index
    for figure in DOCS.glob("*.png"):
        assert f"{figure.name})" in shown, figure.name


def of_package(words: list[str]) -> list[str]:
    """What the command line of the package is given; empty for others."""
    if words[0] == "speechbrain-ee":
        return words[1:]
    return words[3:] if words[1:3] == ["-m", "speechbrain_ee"] else []


@EVERY_PAGE
def test_commands_of_the_package_exist(page):
    """Each is parsed as if it was run: commands, options, what is required."""
    for given in filter(None, map(of_package, commands(page))):
        try:
            _parser(given[0]).parse_known_args(given)
        except SystemExit as stop:
            if stop.code:
                pytest.fail(f"{page.name}: {shlex.join(given)}")


@EVERY_PAGE
def test_commands_named_in_a_sentence_exist(page):
    """These are cut short: what they name has to be there."""
    for given in filter(None, map(of_package, commands(page, in_prose=True))):
        (rooms,) = _parser(given[0])._subparsers._group_actions
        assert given[0] in rooms.choices, f"{page.name}: {given[0]}"
        options = rooms.choices[given[0]]._option_string_actions
        for word in given[1:]:
            name = word.partition("=")[0]
            assert not word.startswith("--") or name in options, word


@EVERY_PAGE
def test_scripts_yamls_and_targets_exist(page):
    """Files that commands run, and the keys that train.py is given."""
    targets = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in [*commands(page), *commands(page, in_prose=True)]:
        said = f"{page.name}: {shlex.join(words)}"
        if words[0] == "make" and len(words) > 1:
            assert re.search(rf"^{words[1]}:", targets, re.M), said
        if not words[0].startswith(("python", "torchrun", "srun")):
            continue
        script = next((word for word in words if word.endswith(".py")), None)
        if script is None or "-m" in words:
            continue
        places = [ROOT / script, *(recipe / script for recipe in RECIPES)]
        assert any(place.is_file() for place in places), said
        if Path(script).name == "train.py":
            check_training(words[words.index(script) + 1 :], said)


def check_training(words: list[str], said: str) -> None:
    """A YAML that is there, and keys that it has."""
    if not words or not words[0].startswith("hparams/"):
        return
    path = ROOT / words[0]
    if not path.is_file():  # hparams/<system>.yaml, and studies' files
        assert path.name in (".yaml", "hpopt.yaml"), said
        return
    text = path.read_text(encoding="utf-8")
    known = {*re.findall(r"^(\w+):", text, re.M), *OPTIONAL_KEYS}
    known |= BRAIN_KEYS | OF_SPEECHBRAIN
    for word in words[1:]:
        if word.startswith("--"):
            assert word[2:].partition("=")[0] in known, f"{said}: {word}"


@EVERY_PAGE
def test_python_is_python_and_imports_what_there_is(page):
    """Code is compiled; what it imports from the package is looked up."""
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if not isinstance(node, ast.ImportFrom):
                continue
            if not (node.module or "").startswith("speechbrain_ee"):
                continue
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{page.name}: {alias.name}"


def test_the_examples_shown_are_those_that_are_tested():
    """To the letter; test_docs_criterion.py and test_docs_models.py run them."""
    shown = blocks(DOCS / "extending.md", "python")
    files = sorted((DOCS / "examples").glob("*.py"))
    assert sorted(shown) == sorted(p.read_text("utf-8") for p in files)


def test_the_reference_holds_everything(tmp_path):
    """Made from the docstrings: every module, and every criterion."""
    spec = importlib.util.spec_from_file_location(
        "make_api", DOCS / "make_api.py"
    )
    make_api = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_api)
    make_api.main([str(tmp_path / "api")])
    pages = {
        page.stem: page.read_text("utf-8") for page in tmp_path.glob("api/*")
    }
    for module, path in make_api.modules().items():
        assert f"- `{module}`: " in pages["README"]
        for node in make_api.definitions(ast.parse(path.read_text("utf-8"))):
            kind = "class" if isinstance(node, ast.ClassDef) else "def"
            heading = f"### `{kind} {node.name}"
            assert heading in pages[make_api.room_of(module)], heading
    for name in criterion_names():
        assert f"| `{name}` | " in pages["criteria"]
        assert get_criterion(name).source in pages["criteria"]
    assert all(name in pages["criteria"] for name in measure_names())
    for text in pages.values():
        # underlines of numpydoc would make headings of whatever is above
        prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
        assert not re.search(r"^-{3,}$", prose, re.M)
        assert prose.count("```") == 0


def test_the_citation_is_complete():
    """The keys that version 1.2.0 of the format requires and allows."""
    content = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert content["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= {*content}
    assert content["version"] == __version__
    assert content["license"] == "Apache-2.0"
    for reference in content["references"]:
        assert {"type", "title", "authors"} <= {*reference}
        for author in reference["authors"]:
            assert {*author} == {"family-names", "given-names"}
