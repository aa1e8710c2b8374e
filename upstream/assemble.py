"""Write this repository's contribution into the layout of SpeechBrain.

Nothing is edited by hand: the same sources give the same tree, byte for byte.

Authors
 * The speechbrain-ee contributors 2026
"""

import importlib.util
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from speechbrain_ee.errors import InputError
from upstream import recipe
from upstream.layout import (
    ABOUT_THIS_REPOSITORY,
    LIBRARY,
    OUR_RECIPE,
    PREPARATION,
    PREPARATION_LINK,
    RECIPE,
    ROOT,
    TABLE,
    TEST_FOLDERS,
    TESTS,
    new_path,
)
from upstream.older_python import bare_with
from upstream.rewriting import rewrite

SETTINGS = Path(__file__).with_name("settings")
INTEGRATION_README = """\
# Early-exit speech recognition

Data, exit selection, training, evaluation and live inference of early-exit
models; the models themselves are in `speechbrain/lobes/models/early_exit`, the
recipe is in `{recipe}`.

Beside SpeechBrain's own requirements:

```
{requirements}```

`python -m speechbrain.integrations.early_exit --help` lists the commands.
"""


@dataclass(frozen=True)
class Assembled:
    """What was written.

    Arguments
    ---------
    root : pathlib.Path
        The tree: the root of a SpeechBrain checkout, with our files alone.
    files : tuple of str
        All of them, relative to the root, sorted.
    left_out : dict
        Tests that stay here, and why.
    """

    root: Path
    files: tuple[str, ...]
    left_out: dict[str, str]


def assemble(out: Path | str, formatted: bool = True) -> Assembled:
    """Write the contribution.

    Arguments
    ---------
    out : path
        A new or empty folder; the tree is ``out/speechbrain``.
    formatted : bool
        Let ruff sort imports and format with SpeechBrain's settings, as new
        names have another length and order.

    Returns
    -------
    Assembled
        Where it is and what it holds.

    Raises
    ------
    InputError
        If the folder holds something.
    """
    root = Path(out) / "speechbrain"
    if root.exists() and any(root.iterdir()):
        raise InputError(
            f"{root} is not empty: files of an older tree would stay among "
            "the new ones; remove it or name another folder."
        )
    tests, left_out = moved_tests()
    texts = library_texts() | tests | recipe_texts()
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    if formatted:
        _format(root)
    # Its target is in SpeechBrain; here the link hangs.
    (root / RECIPE / PREPARATION).symlink_to(PREPARATION_LINK)
    files = sorted([*texts, f"{RECIPE}/{PREPARATION}"])
    return Assembled(root, tuple(files), left_out)


def library_texts() -> dict[str, str]:
    """The library, by new path.

    Returns
    -------
    dict
        Texts of the modules, and the README of the integration.
    """
    texts = {}
    for path in sorted((ROOT / LIBRARY).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        texts[new_path(name)] = _python(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / LIBRARY).rglob("templates/*")):
        name = path.relative_to(ROOT).as_posix()
        texts[new_path(name)] = path.read_text(encoding="utf-8")
    readme = new_path(f"{LIBRARY}/README.md")
    texts[readme] = INTEGRATION_README.format(
        recipe=RECIPE, requirements=recipe.requirements()
    )
    return texts


def _python(text: str) -> str:
    return bare_with(rewrite(text))


def moved_tests() -> tuple[dict[str, str], dict[str, str]]:
    """The tests that go along, by new path, and those that stay, with why.

    Returns
    -------
    texts : dict
        Tests, helpers, and an empty ``__init__.py`` in every folder: names
        of tests repeat between rooms.
    left_out : dict
        From our path to the reason.
    """
    kept: dict[str, str] = {}
    left_out: dict[str, str] = {}
    folders = [ROOT / "tests" / name for name in TEST_FOLDERS]
    paths = [path for folder in folders for path in sorted(folder.glob("*.py"))]
    for path in [*paths, *sorted((ROOT / "tests").glob("*.py"))]:
        name = path.relative_to(ROOT).as_posix()
        text = path.read_text(encoding="utf-8")
        reason = _stays(path, text)
        if reason:
            left_out[name] = reason
        else:
            kept[name] = text
    _leave_dependents(kept, left_out)
    texts = {new_path(name): _python(text) for name, text in kept.items()}
    for folder in ("", *(f"{name}/" for name in TEST_FOLDERS)):
        texts[f"{TESTS}/{folder}__init__.py"] = ""
    return texts, left_out


def _stays(path: Path, text: str) -> str | None:
    if path.name == "conftest.py" and path.parent.name == "tests":
        return None  # it defines what the others may ask for
    if path.parent.name == "tests" and path.name.startswith("test_"):
        return "about this repository"
    for word in ABOUT_THIS_REPOSITORY:
        if word in text:
            return f"about this repository: {word}"
    return None


def _leave_dependents(kept: dict[str, str], left_out: dict[str, str]) -> None:
    """Leave out, in place, what imports a test or helper that stays."""
    imports = re.compile(r"(?m)^\s*from (tests[\w.]*) import")
    changed = True
    while changed:
        changed = False
        for name, text in list(kept.items()):
            for module in imports.findall(text):
                if module.replace(".", "/") + ".py" not in kept:
                    del kept[name]
                    left_out[name] = f"imports {module}"
                    changed = True
                    break


def recipe_texts() -> dict[str, str]:
    """The recipe and its rows in the table, by new path.

    Returns
    -------
    dict
        Texts of all files but the link to the data preparation.
    """
    folder = ROOT / OUR_RECIPE
    texts = {}
    systems = []
    for path in sorted((ROOT / "hparams").rglob("*.yaml")):
        name = path.relative_to(ROOT).as_posix()
        text = path.read_text(encoding="utf-8")
        texts[f"{RECIPE}/{name}"] = rewrite(text.replace(OUR_RECIPE, RECIPE))
        if path.name != "hpopt.yaml":
            systems.append(text)
    for path in sorted(folder.glob("*.py")):
        if path.name not in (PREPARATION, "train.py"):
            script = path.read_text(encoding="utf-8")
            texts[f"{RECIPE}/{path.name}"] = _python(script)
    train = (folder / "train.py").read_text(encoding="utf-8")
    readme = (folder / "README.md").read_text(encoding="utf-8")
    table = (ROOT / TABLE).read_text(encoding="utf-8")
    return texts | {
        f"{RECIPE}/train.py": recipe.train_script(train, systems),
        f"{RECIPE}/README.md": recipe.readme(readme),
        f"{RECIPE}/extra_requirements.txt": recipe.requirements(),
        TABLE: recipe.rows(table),
    }


def _format(root: Path) -> None:
    """Sort imports and format; what cannot be mended is left to the gates."""
    if importlib.util.find_spec("ruff") is None:
        raise InputError(
            "ruff is not installed; it formats as SpeechBrain's hooks do and "
            "is one of the tools of the extra `dev`: make install."
        )
    settings = str(SETTINGS / "ruff.toml")
    for arguments in (["check", "--fix", "--select", "I"], ["format"]):
        subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, "--quiet", "--no-cache"]
            + ["--config", settings, str(root)],
            capture_output=True,
        )
