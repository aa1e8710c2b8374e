"""The command ``sweep``: search over the keys of a recipe's YAML.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import importlib.util
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ruamel.yaml
from ruamel.yaml.error import YAMLError

from speechbrain_ee.errors import InputError, one_line

_FOLDER = "results/sweeps"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``sweep``.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Of the command.
    """
    parser.epilog = (
        "Further --key=value behind the file are keys of the varied YAML, the "
        "same in all trials (--data_folder=...), or options of SpeechBrain "
        "(--device=cuda)."
    )
    parser.set_defaults(workers=1, launcher="local")
    parser.add_argument("file", help="the search, an hpopt.yaml")
    _add_options(parser)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="--key=value")


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--study-folder",
        metavar="DIR",
        help="folder that all workers share (default results/sweeps/NAME)",
    )
    add("--trials", type=int, metavar="N", help="points, instead of the file's")
    add(
        "--workers",
        type=int,
        metavar="N",
        help="trainings at a time (default 1); 0: show the results only",
    )
    add(
        "--devices",
        metavar="0,1",
        help="GPUs that workers of this machine take in turn",
    )
    add(
        "--launcher",
        help="local (default) or submitit: workers as jobs of a cluster",
    )
    add(
        "--no-wait",
        action="store_true",
        help="one worker leaves when there is no point left to take, even if "
        "others are still at work",
    )


def run(arguments: argparse.Namespace) -> str:
    """What ``python -m speechbrain_ee sweep`` does.

    Arguments
    ---------
    arguments : argparse.Namespace
        What :func:`add_arguments` declares.

    Returns
    -------
    str
        The results so far.

    Raises
    ------
    InputError
        If the search or an option cannot be used, all workers died, or no
        training came to its end.
    """
    if importlib.util.find_spec("optuna") is None:
        raise InputError(
            "sweep: the package optuna is not installed; "
            "pip install 'speechbrain-ee[sweep]'."
        )
    from speechbrain_ee.sweeps.definition import Definition
    from speechbrain_ee.sweeps.study import StudyFolder

    # argparse leaves options behind the file to us, whatever they are
    again = argparse.ArgumentParser(
        prog="sweep", argument_default=argparse.SUPPRESS, allow_abbrev=False
    )
    _add_options(again)
    _, keys = again.parse_known_args(arguments.rest, arguments)
    _check(arguments)
    file = Path(arguments.file)
    overrides, run_options = _split(file, pairs(keys))
    definition = Definition.read(file, overrides, arguments.trials)
    name = file.resolve().parent.name
    place = Path(arguments.study_folder or f"{_FOLDER}/{name}")
    if arguments.workers == 0:
        return _results(StudyFolder(place))
    study = StudyFolder.make(place, definition)
    if arguments.launcher == "submitit":
        return _submit(arguments, study, run_options)
    try:
        to_the_end = _work(arguments, study, run_options)
    except (InputError, KeyboardInterrupt):
        sys.stdout.write(f"{_results(study)}\n")
        raise
    text = _results(study)
    problem = _nothing_learned(study) if to_the_end else None
    if problem is not None:
        sys.stdout.write(f"{text}\n")
        raise InputError(problem)
    return text


def pairs(words: Sequence[str]) -> dict[str, str]:
    """Options in SpeechBrain's style.

    Arguments
    ---------
    words : sequence of str
        ``--key=value``, ``--key value`` or ``--flag``.

    Returns
    -------
    dict of str to str
        A flag has the value ``True``.

    Raises
    ------
    InputError
        If a word is no option, or an option is there twice.

    Example
    -------
    >>> pairs(["--lr=0.1", "--data_folder", "/corpus", "--noprogressbar"])
    {'lr': '0.1', 'data_folder': '/corpus', 'noprogressbar': 'True'}
    """
    found: dict[str, str] = {}
    key = None
    for word in words:
        match = re.fullmatch(r"--([A-Za-z_][\w.]*)(?:=(.*))?", word, re.DOTALL)
        if match is None:
            if key is None:
                raise InputError(
                    f"command line: {word!r} is no option; write --key=value."
                )
            found[key], key = word, None
            continue
        if match[1] in found:
            raise InputError(f"--{match[1]}: given more than once.")
        found[match[1]] = "True" if match[2] is None else match[2]
        key = match[1] if match[2] is None else None
    return found


def _split(
    file: Path, given: dict[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """Keys of the varied YAML, and options of SpeechBrain."""
    if not given:
        return {}, []
    from speechbrain_ee.sweeps.base_yaml import BaseYAML
    from speechbrain_ee.sweeps.definition import Definition

    base = BaseYAML.read(Path(Definition.read(file, trials=None).base))
    overrides, options = {}, []
    for key, text in given.items():
        if key.partition(".")[0] in base:
            overrides[key] = _value(key, text)
        elif key in _speechbrain_options():
            flag = text == "True"
            options.append(f"--{key}" if flag else f"--{key}={text}")
        else:
            base.check(key, "command line")
    return overrides, options


def _speechbrain_options() -> set[str]:
    """What ``train.py`` takes besides the keys of its YAML."""
    from speechbrain.utils.run_opts import RunOptions

    return set(RunOptions().as_dict())


def _value(key: str, text: str) -> Any:
    from speechbrain_ee.training.options import path_of

    path = path_of(key.rpartition(".")[2], text)
    if path is not None:
        return path
    try:
        yaml = ruamel.yaml.YAML(typ="safe", pure=True)
        return yaml.load(io.StringIO(text))
    except YAMLError as error:
        raise InputError(
            f"--{key}: {text!r} is no plain YAML ({one_line(error)})."
        ) from None


def _check(arguments: argparse.Namespace) -> None:
    from speechbrain_ee.sweeps.launch import LAUNCHERS

    if arguments.launcher not in LAUNCHERS:
        raise InputError(
            f"--launcher: {arguments.launcher!r} is none of "
            f"{', '.join(LAUNCHERS)}."
        )
    if arguments.workers < 0:
        raise InputError(
            f"--workers: {arguments.workers} must be 0 (results only) or more."
        )


def _results(study: Any) -> str:
    # draws: loaded when there is something to draw, not when work begins
    from speechbrain_ee.sweeps.results import write_results

    return write_results(study)


def _nothing_learned(study: Any) -> str | None:
    """What to say of a search of which every training has failed."""
    from speechbrain_ee.sweeps.results import rows_of

    rows = rows_of(study)
    states = [row.state for row in rows]
    if not {*states} <= {"failed", "waiting"} or "failed" not in states:
        return None
    return (
        f"sweep: none of {len(rows)} points was completed; "
        f"{states.count('failed')} failed for the reasons above, and what "
        f"they printed is in {study.path / 'trials'}. The same command tries "
        "again those that may succeed."
    )


def _submit(
    arguments: argparse.Namespace, study: Any, run_options: list[str]
) -> str:
    """Have a cluster work; there is nothing to show yet."""
    from speechbrain_ee.sweeps import launch

    jobs = launch.launch_submitit(study, arguments.workers, run_options)
    return (
        f"Submitted: {', '.join(jobs)}. The same command with --workers 0 "
        f"shows the results so far; the study is in {study.path}."
    )


def _work(
    arguments: argparse.Namespace, study: Any, run_options: list[str]
) -> bool:
    """Let workers work; False if they were told to stop."""
    from speechbrain_ee.sweeps import launch, worker

    devices = [name for name in (arguments.devices or "").split(",") if name]
    if arguments.workers == 1 and not devices:
        return worker.join(study.path, run_options, not arguments.no_wait)
    return launch.launch_local(study, arguments.workers, run_options, devices)
