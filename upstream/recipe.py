"""The recipe's own files: script, README, requirements, rows of the table.

Authors
 * The speechbrain-ee contributors 2026
"""

import csv
import dataclasses
import functools
import io
import re
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from speechbrain.utils.run_opts import RunOptions

from speechbrain_ee.errors import InputError
from speechbrain_ee.training.options import (
    OPTIONAL_KEYS,
    READ_KEYS,
    SYSTEM_KEYS,
)
from upstream.layout import (
    LIBRARY,
    OUR_RECIPE,
    RECIPE,
    ROOT,
    SPEECHBRAIN_REQUIRES,
    TABLE,
    new_module,
)
from upstream.rewriting import extras, rewrite

_HEADING = re.compile(r"(?m)^(?=#{2,3} )")
_IMAGE = re.compile(r"(?m)^!\[[^\]]*\]\([^)]*\)\n+")
_LOCAL_LINK = re.compile(r"\[([^\]]*)\]\((?:\.\.?/|#)[^)]*\)")
_INSTALL = re.compile(r"(?m)^pip install speechbrain-ee.*$")
# What a module does with a key: hparams["key"], getattr(hparams, "key"),
# hparams.key.
_READ = r"""["']{key}["']|hparams\.{key}\b"""
_LISTS_KEYS = "options.py"  # names keys in order to check them


def top_level_keys(text: str) -> list[str]:
    """Keys in the first column of a YAML text.

    Arguments
    ---------
    text : str
        The YAML.

    Returns
    -------
    list of str
        In order.

    Example
    -------
    >>> top_level_keys("a: 1\\nb:\\n    c: 2\\n")
    ['a', 'b']
    """
    return re.findall(r"^([A-Za-z_]\w*):", text, re.MULTILINE)


def unread_keys(yaml_text: str, script: str) -> list[str]:
    """Keys that SpeechBrain's check of YAMLs calls unused.

    A key counts as used where a later line refers to it, or where the script
    has it in brackets or after ``hparams.`` or ``modules.``. Keys built by
    ``!apply`` are not looked at.

    Arguments
    ---------
    yaml_text : str
        A system.
    script : str
        The text of its train.py.

    Returns
    -------
    list of str
        In order; SpeechBrain's run options are still among them.

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


def reader_of(key: str) -> str | None:
    """The module of the library that reads a key.

    Arguments
    ---------
    key : str
        Of a YAML.

    Returns
    -------
    str | None
        Its name in SpeechBrain, one of training before any other; None if
        the key acts by references in the YAML alone.
    """
    if key not in READ_KEYS | SYSTEM_KEYS | OPTIONAL_KEYS.keys():
        return None
    pattern = re.compile(_READ.format(key=key))
    for path, text in _library().items():
        if pattern.search(text):
            parts = path.relative_to(ROOT).with_suffix("").parts
            return new_module(".".join(parts))
    return None


@functools.cache
def _library() -> dict[Path, str]:
    """Texts of all modules, those of training first."""
    paths = [
        *sorted((ROOT / LIBRARY / "training").rglob("*.py")),
        *sorted((ROOT / LIBRARY).rglob("*.py")),
    ]
    return {
        path: path.read_text(encoding="utf-8")
        for path in paths
        if path.name != _LISTS_KEYS
    }


def train_script(text: str, yamls: Iterable[str]) -> str:
    """The script, with a table of the keys that the library reads for it.

    SpeechBrain asks that every key of a YAML be named in the script, which
    is also the first place where a reader looks for it.

    Arguments
    ---------
    text : str
        Our train.py.
    yamls : iterable of str
        The texts of all systems.

    Returns
    -------
    str
        The text for SpeechBrain.
    """
    missing = {key for yaml in yamls for key in unread_keys(yaml, text)}
    options = {field.name for field in dataclasses.fields(RunOptions)}
    lines = ["# Keys of the YAML that are read elsewhere, and where:"]
    for key in sorted(missing - options):
        lines.append(f'# ["{key}"] {reader_of(key) or "the YAML itself"}')
    marker = "\n\n@exits_on_input_error\ndef main("
    if marker not in text:
        raise InputError(f"{OUR_RECIPE}/train.py: main() is not where it was.")
    table = "\n" + "\n".join(lines) + "\n"
    return rewrite(text.replace(marker, f"{table}{marker}"))


def readme(text: str) -> str:
    """The README, without what only this repository can show.

    Sections that rest on ``benchmarks/`` stay here, with figures and with
    links to files that stay here, too.

    Arguments
    ---------
    text : str
        Our README of the recipe.

    Returns
    -------
    str
        The text for SpeechBrain.
    """
    kept: list[str] = []
    for part in _HEADING.split(text):
        heading, _, body = part.partition("\n")
        if "benchmarks/" in body:
            if not heading.startswith("## "):
                continue
            part = heading + "\n\n"
        kept.append(part)
    # A heading whose sections all stayed behind has nothing to say.
    pairs = zip(kept, [*kept[1:], "## end"])
    text = "".join(
        part
        for part, following in pairs
        if part.count("\n") > 2 or following.startswith("### ")
    )
    text = _LOCAL_LINK.sub(r"\1", _IMAGE.sub("", text))
    text = _INSTALL.sub("pip install -r extra_requirements.txt", text)
    text = text.replace(OUR_RECIPE, RECIPE)
    return rewrite(text).rstrip("\n") + "\n"


def requirements() -> str:
    """What the contribution needs beside SpeechBrain, optional parts too.

    Returns
    -------
    str
        The text of extra_requirements.txt, sorted as SpeechBrain's
        pre-commit hook sorts it.
    """
    tools = {"dev"}
    lines: dict[str, str] = {}
    for name, needed in extras().items():
        for line in needed if name not in tools else ():
            requirement = Requirement(line)
            if requirement.name.lower() not in SPEECHBRAIN_REQUIRES:
                lines[requirement.name.lower()] = line
    return "".join(f"{lines[name]}\n" for name in sorted(lines))


def rows(text: str) -> str:
    """Our rows of the table of recipes, with the new paths.

    Arguments
    ---------
    text : str
        Our table.

    Returns
    -------
    str
        Header and rows; the rows go to the end of SpeechBrain's own table.
    """
    parsed = list(csv.reader(io.StringIO(text)))
    if not parsed or len(parsed[0]) != 11:
        raise InputError(f"{TABLE}: its eleven columns are not there.")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in parsed:
        writer.writerow([cell.replace(OUR_RECIPE, RECIPE) for cell in row])
    return rewrite(out.getvalue())
