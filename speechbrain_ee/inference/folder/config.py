"""``config.json`` of an inference folder, schema ``early-exit-model/1``.

Plain data: what the folder is called, how audio becomes text, and the tree of
the model. Every key is checked; what is missing, unknown or of a wrong type
is refused by name.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from speechbrain_ee import __version__
from speechbrain_ee.errors import InputError, quoted
from speechbrain_ee.exits.decoding.methods import DECODINGS
from speechbrain_ee.exits.decoding.search_options import SearchOptions
from speechbrain_ee.files import read_json, whole_file
from speechbrain_ee.inference.folder.architecture import (
    WAY_OUT as _WAY_OUT,
)
from speechbrain_ee.inference.folder.architecture import Architecture
from speechbrain_ee.inference.folder.measured import (
    Measured,
    measured_rows,
    parse_measured,
)

CONFIG_FILE = "config.json"
SCHEMA = "early-exit-model/1"
SAMPLE_RATES = range(1000, 384_001)  # Hz
# Scorers are objects; a folder holds numbers.
SEARCH_KEYS = tuple(
    each.name
    for each in fields(SearchOptions)
    if not each.name.startswith("scorer") or each.name == "scorer_beam_scale"
)
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "schema": str,
    "version": str,
    "name": str,
    "sample_rate": int,
    "decoding": str,
    "search": dict,
    "default_policy": (str, type(None)),
    "default_reason": str,
    "facts": dict,
    "measured": list,
    "model": dict,
}


@dataclass(frozen=True)
class FolderConfig:
    """What ``config.json`` says.

    Arguments
    ---------
    name : str
        The system.
    architecture : Architecture
        The model.
    sample_rate : int
        Samples per second.
    decoding : str
        How hypotheses are made, for example ``ctc_greedy``.
    search : SearchOptions
        How they are searched for.
    default_policy : str, optional
        Name of the policy that is used if none is asked for.
    facts : mapping of str to str
        What the card says of data and training.
    measured : tuple of Measured
        What exits and policies gave on test sets.
    default_reason : str
        Why that policy, for people; folders of earlier versions have none.
    """

    name: str
    architecture: Architecture
    sample_rate: int
    decoding: str = "ctc_greedy"
    search: SearchOptions = SearchOptions()
    default_policy: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    measured: tuple[Measured, ...] = ()
    default_reason: str = ""


def write_config(path: str | Path, config: FolderConfig) -> None:
    """Write ``config.json``.

    Arguments
    ---------
    path : str or Path
        Target.
    config : FolderConfig
        Its content.

    Raises
    ------
    InputError
        If the target cannot be written.
    """
    content = {
        "schema": SCHEMA,
        "version": __version__,
        "name": config.name,
        "sample_rate": config.sample_rate,
        "decoding": config.decoding,
        "search": {key: getattr(config.search, key) for key in SEARCH_KEYS},
        "default_policy": config.default_policy,
        "default_reason": config.default_reason,
        "facts": dict(config.facts),
        "measured": measured_rows(config.measured),
        "model": config.architecture.tree,
    }
    text = json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False)
    with whole_file(Path(path)) as stream:
        stream.write(f"{text}\n".encode())


def read_config(path: str | Path) -> FolderConfig:
    """Read ``config.json`` and check every key but those of the model.

    Arguments
    ---------
    path : str or Path
        A file of :func:`write_config`.

    Returns
    -------
    FolderConfig

    Raises
    ------
    InputError
        With file and key, if it is missing, damaged or of another version.
    """
    path = Path(path)
    content = read_json(path, _WAY_OUT)
    schema = content.get("schema")
    if schema != SCHEMA:
        advice = _WAY_OUT
        if str(schema).startswith(SCHEMA.partition("/")[0]):
            advice = (
                f"update speechbrain-ee (this is {__version__}), or {advice}"
            )
        _fail(
            path, "schema", f"{quoted(schema)}, but {SCHEMA!r} is read", advice
        )
    for key in content:
        if key not in _TYPES:
            _fail(path, key, f"not known; valid keys: {', '.join(_TYPES)}")
    content.setdefault("default_reason", "")  # 0.1.0 did not say it
    for key, kind in _TYPES.items():
        if key not in content:
            _fail(path, key, "missing")
        value = content[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            _fail(path, key, f"{quoted(value)} is of a wrong type")
    check_sample_rate(content["sample_rate"], path)
    if content["decoding"] not in DECODINGS:
        _fail(
            path,
            "decoding",
            f"{quoted(content['decoding'])} is not one of {', '.join(DECODINGS)}",
        )
    return FolderConfig(
        content["name"],
        Architecture(content["model"], str(path)),
        content["sample_rate"],
        content["decoding"],
        _search(path, content["search"]),
        content["default_policy"],
        {str(key): str(value) for key, value in content["facts"].items()},
        parse_measured(content["measured"], f"{path}, key measured"),
        content["default_reason"],
    )


def check_sample_rate(rate: Any, path: Path) -> int:
    """A sample rate that speech can have; an InputError for others."""
    if type(rate) is not int or rate not in SAMPLE_RATES:
        _fail(
            path,
            "sample_rate",
            f"{quoted(rate)} Hz, but a whole number from {SAMPLE_RATES[0]} to "
            f"{SAMPLE_RATES[-1]} is expected",
        )
    return rate


def _search(path: Path, options: Mapping[str, Any]) -> SearchOptions:
    for key in options:
        if key not in SEARCH_KEYS:
            _fail(
                path,
                f"search.{key}",
                f"not known; valid keys: {', '.join(SEARCH_KEYS)}",
            )
    try:
        return SearchOptions(**options)
    except InputError as error:
        _fail(path, "search", str(error).rstrip("."))


def _fail(
    path: Path, key: str, problem: str, advice: str = _WAY_OUT
) -> NoReturn:
    raise InputError(f"{path}, key {key}: {problem}; {advice}.")
