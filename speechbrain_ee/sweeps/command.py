"""The command ``sweep``: search over the keys of a recipe's YAML.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import importlib.util
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ruamel.yaml
from msgspec.structs import replace
from ruamel.yaml.error import YAMLError

from speechbrain_ee.errors import InputError, one_line

# Optuna is an extra: what needs it is imported when there is work.
if TYPE_CHECKING:
    from speechbrain_ee.sweeps.study import StudyFolder

_WORKER = (sys.executable, "-m", "speechbrain_ee.sweeps.study")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``sweep``."""
    parser.epilog = (
        "Further --key=value are keys of the varied YAML, the same in all "
        "trials (--data_folder=...), or options of SpeechBrain "
        "(--device=cuda)."
    )
    parser.allow_abbrev = False  # of --devices, --device is none
    parser.set_defaults(takes_further=True)
    add = parser.add_argument
    add("file", help="the search, an hpopt.yaml")
    add(
        "--study-folder",
        metavar="DIR",
        help="folder that all workers share (default results/sweeps/NAME)",
    )
    add(
        "--storage",
        metavar="URL",
        help="database instead of a file in that folder, for workers on "
        "several nodes (postgresql+psycopg://user@host/database)",
    )
    add("--trials", type=int, metavar="N", help="points, instead of the file's")
    add(
        "--workers",
        type=int,
        metavar="N",
        default=1,
        help="trainings at a time (default 1); 0: show the results only",
    )
    add(
        "--point",
        type=int,
        metavar="N",
        help="train point N alone, counted from 0, without a database: for "
        "job arrays",
    )
    add(
        "--devices",
        metavar="0,1",
        default="",
        help="GPUs that workers of this machine take in turn",
    )
    add(
        "--launcher",
        choices=("local", "submitit"),
        default="local",
        help="local (default) or submitit: as jobs of a cluster",
    )
    add(
        "--no-wait",
        action="store_true",
        help="one worker leaves when there is no point left to take, even if "
        "others are still at work",
    )


def run(arguments: argparse.Namespace) -> str:
    """What ``python -m speechbrain_ee sweep`` does; returns the results."""
    if importlib.util.find_spec("optuna") is None:
        raise InputError(
            "sweep: the package optuna is not installed; "
            "pip install 'speechbrain-ee[sweep]'."
        )
    from speechbrain_ee.sweeps.definition import Definition
    from speechbrain_ee.sweeps.study import StudyFolder, train_point

    workers = arguments.workers
    if workers < 0:
        raise InputError(
            f"--workers: {workers} must be 0 (results only) or more."
        )
    file = Path(arguments.file)
    definition = Definition.read(
        file, trials=arguments.trials, storage=arguments.storage
    )
    overrides, options = _split(definition.base, pairs(arguments.further))
    overrides = {**definition.overrides, **overrides}
    name = file.resolve().parent.name
    place = Path(arguments.study_folder or f"results/sweeps/{name}")
    if workers == 0:
        return _results(StudyFolder(place))
    study = StudyFolder.make(place, replace(definition, overrides=overrides))
    if arguments.point is not None:
        done = train_point(study.path, arguments.point, options)
        output = study.trial(arguments.point)
        return f"Point {'done' if done else 'stopped'}: {output}"
    if arguments.launcher == "submitit":
        jobs = _submit(study, workers, options)
        return (
            f"Submitted: {', '.join(jobs)}. The same command with --workers 0 "
            f"shows the results so far; the study is in {study.path}."
        )
    try:
        to_the_end = _work(arguments, study, options)
    except (InputError, KeyboardInterrupt):
        sys.stdout.write(f"{_results(study)}\n")
        raise
    text = _results(study)
    if to_the_end:
        _check_learned(study, text)
    return text


def pairs(words: Sequence[str]) -> dict[str, str]:
    """Options in SpeechBrain's style; a flag has the value ``True``.

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
    path: str, given: dict[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """Keys of the varied YAML, and options of SpeechBrain."""
    if not given:
        return {}, []
    from speechbrain.utils.run_opts import RunOptions

    from speechbrain_ee.sweeps.definition import BaseYAML

    base = BaseYAML.read(Path(path))
    overrides, options = {}, []
    for key, text in given.items():
        if key.partition(".")[0] in base:
            overrides[key] = _value(key, text)
        elif key in RunOptions().as_dict():
            flag = text == "True"
            options.append(f"--{key}" if flag else f"--{key}={text}")
        else:
            base.check(key, "command line")
    return overrides, options


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
            f"--{key}: {text!r} is not YAML ({one_line(error)})."
        ) from None


def _results(study: "StudyFolder") -> str:
    # loads matplotlib, which work can begin without
    from speechbrain_ee.sweeps.results import write_results

    return write_results(study)


def _check_learned(study: "StudyFolder", text: str) -> None:
    """Refuse to call a search done of which every training has failed."""
    from speechbrain_ee.sweeps.results import rows_of

    states = [row.state for row in rows_of(study)]
    if "failed" not in states or not {*states} <= {"failed", "waiting"}:
        return
    sys.stdout.write(f"{text}\n")
    raise InputError(
        f"sweep: none of {len(states)} points was completed; "
        f"{states.count('failed')} failed for the reasons above, and what "
        f"they printed is in {study.path / 'trials'}. The same command tries "
        "again those that may succeed."
    )


def _work(
    arguments: argparse.Namespace, study: "StudyFolder", options: list[str]
) -> bool:
    """Let workers of this machine work; False if they were told to stop.

    Several are processes of their own, and take the GPUs in turn.
    """
    from speechbrain_ee.sweeps.study import join
    from speechbrain_ee.sweeps.trial import leashed, told_to_stop

    devices = [name for name in arguments.devices.split(",") if name]
    if arguments.workers == 1 and not devices:
        return join(study.path, options, not arguments.no_wait)
    if study.definition.storage:
        study.open()  # says once, not for each worker, why it cannot be
    processes = []
    for number in range(arguments.workers):
        environment = dict(os.environ)
        if devices:
            device = devices[number % len(devices)]
            environment["CUDA_VISIBLE_DEVICES"] = device
        command = leashed([*_WORKER, str(study.path), *options])
        processes.append(subprocess.Popen(command, env=environment))

    def pass_on() -> None:
        for process in processes:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)

    with told_to_stop(pass_on) as stop:
        statuses = [process.wait() for process in processes]
    if all(statuses) and not stop.is_set():
        raise InputError(
            f"sweep: all {len(statuses)} workers died (exit status "
            f"{', '.join(map(str, statuses))}); what they said is above. The "
            "same command goes on with the points that are left."
        )
    return not stop.is_set()


def _submit(
    study: "StudyFolder", workers: int, options: list[str]
) -> list[str]:
    """Jobs of a cluster: workers of a database, or else one per point."""
    from speechbrain_ee.sweeps.study import check_single, join, train_point

    try:
        import submitit
    except ImportError:
        raise InputError(
            "--launcher submitit: the package submitit is not installed; "
            "pip install submitit, or submit hparams/sweeps/slurm_array.sh."
        ) from None
    definition = study.definition
    parameters = dict(definition.launcher)
    if definition.storage:
        work = join
        calls = [(str(study.path), options, False)] * workers
    else:
        check_single(definition)
        parameters.setdefault("slurm_array_parallelism", workers)
        work = train_point
        calls = [
            (str(study.path), point, options)
            for point in range(definition.trials)
            if study.result(point) is None
        ]
    executor = submitit.AutoExecutor(folder=str(study.path / "submitit"))
    try:
        executor.update_parameters(**parameters)
    except (TypeError, ValueError, NameError) as error:
        raise InputError(f"launcher: submitit refuses it: {error}.") from None
    jobs = executor.map_array(work, *zip(*calls, strict=True))
    return [str(job.job_id) for job in jobs]
