"""New names: which, where, and nothing else.

Authors
 * The speechbrain-ee contributors 2026
"""

import ast
import doctest
import re

import pytest

from speechbrain_ee.errors import InputError
from upstream import layout, older_python, recipe, rewriting
from upstream.layout import MODULES, ROOT, new_module, new_path
from upstream.older_python import bare_with
from upstream.recipe import readme, requirements, rows, unread_keys
from upstream.rewriting import extras, is_clean, rewrite


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "import speechbrain_ee.exits.policy as p",
            "import speechbrain.integrations.early_exit.exits.policy as p",
        ),
        (
            "a: !new:speechbrain_ee.models.heads.CTCHeads",
            "a: !new:speechbrain.lobes.models.early_exit.heads.CTCHeads",
        ),
        (
            "from speechbrain_ee import __version__",
            "from speechbrain.integrations.early_exit import __version__",
        ),
        ("See speechbrain_ee.", "See speechbrain.integrations.early_exit."),
        (
            "in speechbrain_ee/data/audio.py",
            "in speechbrain/integrations/early_exit/data/audio.py",
        ),
        (
            "    from tests.models.ssl_models import x",
            "    from tests.unittests.early_exit.models.ssl_models import x",
        ),
        ("SPEECHBRAIN_EE_SHARED", "SPEECHBRAIN_EARLY_EXIT_SHARED"),
        ("library_name: speechbrain-ee", "library_name: speechbrain"),
        ("modelsx speechbrain_eee tests.x", "modelsx speechbrain_eee tests.x"),
        (
            " * The speechbrain-ee contributors 2026",
            " * The speechbrain-ee contributors 2026",
        ),
    ],
)
def test_names(old: str, new: str) -> None:
    """Wherever they stand, and once: a second time changes nothing."""
    assert rewrite(old) == new
    assert rewrite(new) == new


def test_extras_become_their_requirements() -> None:
    """There is no package to install any more."""
    (wanted,) = extras()["sweep"]
    assert rewrite("pip install 'speechbrain-ee[sweep]'") == (
        f"pip install '{wanted}'"
    )
    with pytest.raises(InputError, match="no such extra; it has .*ssl"):
        rewrite("speechbrain-ee[none]")


def test_every_module_has_its_own_place() -> None:
    """No two files become one, and the path says the module."""
    paths = sorted(ROOT.glob("speechbrain_ee/**/*.py"))
    names = [path.relative_to(ROOT).as_posix() for path in paths]
    new = [new_path(name) for name in names]
    assert len(set(new)) == len(new) > 200
    for old, moved in zip(names, new):
        module = old.removesuffix(".py").replace("/", ".")
        assert new_module(module).replace(".", "/") + ".py" == moved
        assert moved.startswith(
            tuple(each.replace(".", "/") for each in MODULES.values())
        )


@pytest.mark.parametrize(
    "text",
    [
        "with (\n    f(1, (2, 3)) as a,\n    g('é:)') as (b, c),\n):\n    x()\n",
        "def f():\n    with (a as b):\n        with (c, d):\n            e\n",
        "with (a), (b):\n    pass\n",
        "with (a, b)[0] as c:\n    pass\n",
        "with (yield):\n    pass\n",
    ],
)
def test_context_managers_without_parentheses(text: str) -> None:
    """The same program, by its syntax tree, and ruff sees nothing newer."""
    bare = bare_with(text)
    assert ast.dump(ast.parse(bare)) == ast.dump(ast.parse(text))
    assert bare_with(bare) == bare
    assert not re.search(r"with \([^()]* as |with \($", bare, re.MULTILINE)


def test_left_over_names_are_noticed() -> None:
    """Only the authors keep theirs."""
    assert is_clean("The speechbrain-ee contributors, speechbrain.lobes")
    for text in ("speechbrain_ee", "Speechbrain-EE", "SPEECHBRAIN_EE_X"):
        assert not is_clean(text)


def test_keys_that_speechbrain_calls_unused() -> None:
    """Referred to by a later line or named in the script: used."""
    yaml = "a: 1\nb: !ref <a>\nc: !ref <d>\nd: 1\ne: !apply:x\nf:\n    g: 1\n"
    assert unread_keys(yaml, "") == ["b", "c", "d", "f"]
    script = 'hparams["b"], hparams.c, modules.d, # ["f"]'
    assert unread_keys(yaml, script) == []


def test_readme_keeps_what_stands_there_alone() -> None:
    """Sections that rest on benchmarks stay here; so do figures and links."""
    text = (
        "# T\n\nSee [this](../../../docs/x.md) and [that](https://x.org).\n\n"
        "## Results\n\nFrom `benchmarks/x.py`.\n\n### A\n\nbenchmarks/a\n\n"
        "### B\n\n![F](../../../docs/f.png)\n\nText.\n\n"
        "## C\n\n### D\n\nbenchmarks/d\n"
    )
    assert readme(text) == (
        "# T\n\nSee this and [that](https://x.org).\n\n"
        "## Results\n\n### B\n\nText.\n"
    )


def test_requirements_are_those_that_speechbrain_lacks() -> None:
    """Each once, sorted, with its version; no tool, no torch."""
    lines = requirements().splitlines()
    names = [line.split(">")[0].split("=")[0].lower() for line in lines]
    assert names == sorted(set(names))
    assert {"jiwer", "rapidfuzz", "matplotlib", "transformers"} <= set(names)
    assert not {"torch", "speechbrain", "pytest", "ruff"} & set(names)


def test_rows_keep_their_cells() -> None:
    """Only paths change, and cells with commas stay one cell."""
    header = ",".join("abcdefghijk")
    row = 'T,L,recipes/LibriSpeech/EarlyExit/train.py,,,,,,-x,"f=[a,b]",'
    assert rows(f"{header}\n{row}\n") == (
        f"{header}\n"
        'T,L,recipes/LibriSpeech/ASR/early_exit/train.py,,,,,,-x,"f=[a,b]",\n'
    )
    with pytest.raises(InputError, match="eleven columns"):
        rows("a,b\n")


@pytest.mark.parametrize("module", [layout, older_python, recipe, rewriting])
def test_examples(module: object) -> None:
    """The docstrings of the scripts hold, too."""
    result = doctest.testmod(module)
    assert result.attempted and not result.failed
