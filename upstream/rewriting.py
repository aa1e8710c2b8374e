"""Names of this repository, rewritten to those they have in SpeechBrain.

The name of our package means nothing else, so it is replaced as a whole word
wherever it stands: in an import, a ``!new:`` tag, a doctest, the text of an
error. What is left is the name of the project, which becomes that of the
package, except where a header names the authors. That every import of the
result leads somewhere is checked on its syntax trees (:mod:`upstream.gates`).

Authors
 * The speechbrain-ee contributors 2026
"""

import configparser
import functools
import re

from speechbrain_ee.errors import InputError
from upstream.layout import (
    INTEGRATION,
    LIBRARY,
    MODULES,
    RECIPE,
    ROOT,
    TESTS,
    new_module,
    new_path,
)

AUTHORS = "The speechbrain-ee contributors"
_DOTTED = re.compile(rf"\b{LIBRARY}\b((?:\.\w+)*)")
_FILE = re.compile(rf"\b{LIBRARY}((?:/\w+)+)((?:\.py)?)")
_TEST_IMPORT = re.compile(
    r"(?m)^([ \t]*(?:>>> )?(?:from|import) )tests\.(?!unittests)"
)
_EXTRA = re.compile(r"speechbrain-ee\\?\[(\w+)\\?\]")  # also in a pattern
_CARD = re.compile(r"""(library_name(?:: |"\] == "))speechbrain-ee""")
# The systems, seen from tests/<room>/ and tests/unittests/early_exit/<room>/.
_SYSTEMS = 'Path(__file__).resolve().parents[2] / "hparams"'
_NEW_SYSTEMS = f'Path(__file__).resolve().parents[4] / "{RECIPE}/hparams"'
_VARIABLE = re.compile(rf"\b{LIBRARY.upper()}")


@functools.cache
def extras() -> dict[str, list[str]]:
    """Requirement lines of setup.cfg by extra; the core under ``""``.

    Returns
    -------
    dict
        For example ``{"": ["torch>=2.7.1"], "ssl": ["transformers>=4.57"]}``.
    """
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    texts = {"": parser["options"]["install_requires"]}
    texts |= parser["options.extras_require"]
    return {name: text.strip().splitlines() for name, text in texts.items()}


def _requirements(found: re.Match) -> str:
    name = found[1]
    if name not in extras():
        raise InputError(
            f"speechbrain-ee[{name}]: setup.cfg has no such extra; it has "
            f"{', '.join(sorted(set(extras()) - {''}))}."
        )
    return " ".join(extras()[name])


def rewrite(text: str) -> str:
    """Give everything of ours its new name.

    Arguments
    ---------
    text : str
        Of a file: Python, YAML, Markdown or a table.

    Returns
    -------
    str
        The same text with new names.

    Raises
    ------
    InputError
        If it mentions an extra that setup.cfg does not have.

    Example
    -------
    >>> rewrite("from speechbrain_ee.models.heads import CTCHeads")
    'from speechbrain.lobes.models.early_exit.heads import CTCHeads'
    >>> rewrite("python -m speechbrain_ee report; speechbrain_ee/errors.py")
    'python -m speechbrain.integrations.early_exit report; \
speechbrain/lobes/models/early_exit/errors.py'
    >>> rewrite("* The speechbrain-ee contributors 2026")
    '* The speechbrain-ee contributors 2026'
    """
    text = _FILE.sub(
        lambda found: new_path(LIBRARY + found[1]) + found[2], text
    )
    text = _DOTTED.sub(lambda found: new_module(LIBRARY + found[1]), text)
    text = _TEST_IMPORT.sub(rf"\g<1>{TESTS.replace('/', '.')}.", text)
    text = text.replace(_SYSTEMS, _NEW_SYSTEMS)
    text = _EXTRA.sub(_requirements, text)
    text = _CARD.sub(r"\g<1>speechbrain", text)
    text = _VARIABLE.sub("SPEECHBRAIN_EARLY_EXIT", text)
    parts = text.split(AUTHORS)
    return AUTHORS.join(
        part.replace("speechbrain-ee", INTEGRATION) for part in parts
    )


def is_clean(text: str) -> bool:
    """Whether a text speaks of SpeechBrain's modules alone.

    Arguments
    ---------
    text : str
        Of a file of the assembled tree.

    Returns
    -------
    bool
        No name of this repository but that of the authors.
    """
    return not re.search(
        rf"{LIBRARY}|speechbrain-ee", text.replace(AUTHORS, ""), re.IGNORECASE
    )


def moved_modules() -> tuple[str, ...]:
    """Packages of SpeechBrain that hold what was ours.

    Returns
    -------
    tuple of str
        Dotted names.
    """
    return tuple(sorted(set(MODULES.values())))
