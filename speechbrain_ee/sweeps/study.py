"""A study: Optuna's storage and what each worker needs beside it.

A *point* is one choice of values, counted from 0; a *trial* of Optuna is one
attempt at a point. The n-th trial that repeats no other one is point n, so
that points are handed out by the storage itself, whoever asks. A trial that
failed is repeated by Optuna's own callback.

The folder holds ``sweep.json`` (the sweep, and the YAML as it was when the
study began), ``study.db`` (unless the sweep names another storage) and
``trials/`` (a folder per point).

Authors
 * The speechbrain-ee contributors 2026
"""

import datetime
import fcntl
import json
import logging
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from msgspec.structs import replace
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from speechbrain_ee.errors import (
    EXIT_STATUS,
    INTERRUPTED,
    InputError,
    exits_on_input_error,
    one_line,
)
from speechbrain_ee.files import whole_file
from speechbrain_ee.schema import Record, convert, plain
from speechbrain_ee.sweeps.definition import (
    OUTPUT,
    BaseYAML,
    Definition,
    quiet,
)
from speechbrain_ee.sweeps.trial import (
    Ended,
    outcome,
    run_training,
    told_to_stop,
    valid_wers,
)

logger = logging.getLogger(__name__)

DATABASE, TRIAL_YAML, RESULT = "study.db", "trial.yaml", "result.json"
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
_SWEEP = "sweep.json"
_NEW = "start one with `sweep hpopt.yaml --study-folder ...`"
_EARLIER = "journal.log"  # of the version that kept Optuna's journal
_MAX_LOST = 20  # workers that may die over a point before it is given up
_BEATS = 6  # signs of life in the time after which one is taken for dead
_LOCKED_S = 60.0  # that SQLite waits for other writers
_TPE_STARTUP = 10  # points that tpe draws at random
_SAID = 5  # last lines of a training's output, in messages
_WAIT_S = 1.0  # before asking again whether there is something to take
_LOOK_S = 1.0  # between looks at the log of a training
_ASK_S = 10.0  # between looks whether a trial is still one's own
_SETTLED_S = 5.0  # by then Optuna has written a trial's first sign of life


class _Study(Record):
    """What ``sweep.json`` holds.

    ``start`` is the folder where relative paths of the YAML start from.
    """

    name: str
    start: str
    base_yaml: str
    definition: Definition


class StudyFolder:
    """A study that is there; InputError if there is none."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        file = self.path / _SWEEP
        if (self.path / _EARLIER).is_file():
            raise InputError(
                f"{path}: holds a study of an earlier version; finish it "
                "with that version, or choose another --study-folder."
            )
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path}: holds no study ({error}); {_NEW}."
            ) from None
        self.content = convert(content, _Study, file, _NEW)
        self.definition = self.content.definition
        self.base = BaseYAML(self.content.base_yaml, self.definition.base)

    @classmethod
    def make(cls, path: Path, definition: Definition) -> "StudyFolder":
        """Begin a study, or join one that is the same.

        More trials than the study has are added to it.
        """
        base = BaseYAML.read(Path(definition.base))
        definition.check(base)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--study-folder: {path} cannot be made ({error.strerror})."
            ) from None
        new = _Study(str(path.resolve()), os.getcwd(), base.text, definition)
        with _alone(path):
            if any((path / name).exists() for name in (_SWEEP, _EARLIER)):
                old = cls(path).content
                _check_same(path, old, new)
                most = max((new, old), key=lambda s: s.definition.trials)
                new = replace(old, definition=most.definition)
            with whole_file(path / _SWEEP, text=True) as stream:
                json.dump(plain(new), stream, indent=1)
        return cls(path)

    def open(self) -> optuna.Study:
        """Optuna's study; made if missing."""
        objectives = self.definition.objectives
        prune = self.definition.prune
        with _alone(self.path), quiet():
            study = optuna.create_study(
                storage=self._storage(),
                # a server may hold many
                study_name=self.content.name
                if self.definition.storage
                else "sweep",
                directions=["minimize"] * len(objectives),
                sampler=optuna.samplers.RandomSampler(),
                pruner=prune.pruner() if prune else optuna.pruners.NopPruner(),
                load_if_exists=True,
            )
            if not study.metric_names:
                study.set_metric_names([o.label for o in objectives])
        return study

    def _storage(self) -> RDBStorage:
        from sqlalchemy import event
        from sqlalchemy.exc import SQLAlchemyError

        stale_s = round(self.definition.stale_s)
        options = {
            "heartbeat_interval": max(1, stale_s // _BEATS),
            "grace_period": stale_s,
        }
        url = self.definition.storage
        if url:
            try:
                return RDBStorage(url, **options)
            except (ImportError, RuntimeError, SQLAlchemyError) as error:
                raise InputError(
                    f"storage: {one_line(error)}. PostgreSQL needs a server "
                    "and `pip install psycopg[binary]`: "
                    "postgresql+psycopg://user@host/database."
                ) from None
        database = self.path / DATABASE
        storage = RDBStorage(
            f"sqlite:///{DATABASE}",
            # a path may hold what means something in a URL
            {
                "creator": lambda: sqlite3.connect(
                    database,
                    _LOCKED_S,
                    isolation_level=None,
                    check_same_thread=False,
                )
            },
            **options,
        )
        # SQLite has no locks of rows: what Optuna reads in order to write
        # must not change in between.
        event.listen(
            storage.engine,
            "begin",
            lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"),
        )
        return storage

    def trials(self) -> list[FrozenTrial]:
        """Optuna's trials; none of a study of single points."""
        if self.definition.storage or (self.path / DATABASE).exists():
            return self.open().get_trials(deepcopy=False)
        return []

    @cached_property
    def points(self) -> list[dict[str, Any]]:
        """The values of all points; not of ``tpe``."""
        return self.definition.points()

    def sampler(self, point: int) -> optuna.samplers.BaseSampler:
        """What draws the values of one point."""
        samplers, seed = optuna.samplers, self.definition.seed
        if self.definition.sampler == "tpe":
            seeds = np.random.SeedSequence([seed, point])
            return samplers.TPESampler(
                seed=int(seeds.generate_state(1)[0]),
                n_startup_trials=_TPE_STARTUP,
                multivariate=False,
                # what others are trying at the moment counts as bad
                constant_liar=True,
            )
        space = self.definition.space
        shown = {
            key: space[key].shown(value)
            for key, value in self.points[point].items()
        }
        return samplers.PartialFixedSampler(shown, samplers.RandomSampler())

    def trial(self, point: int) -> Path:
        """The ``output_folder`` of a point's training."""
        return self.path / "trials" / f"{point:04d}"

    def yaml(self, values: dict[str, Any], output: Path) -> str:
        """The whole YAML of a training with a point's values."""
        settings = self.definition.settings(values)
        return self.base.with_values({**settings, OUTPUT: str(output)})

    def train(
        self,
        point: int,
        values: dict[str, Any],
        run_options: Sequence[str],
        stop: threading.Event,
        watch: Callable[[], bool] = lambda: True,
    ) -> Ended:
        """Train a point, or go on where its last training was stopped."""
        output = self.trial(point)
        with whole_file(output / TRIAL_YAML, text=True) as stream:
            stream.write(self.yaml(values, output))
        logger.info("Point %d: %s", point, _on_one_line(values))
        script = self.definition.script
        command = [sys.executable, script, str(output / TRIAL_YAML)]
        return run_training(
            [*command, *run_options], output, self.content.start, stop, watch
        )

    def measure(
        self, point: int, values: dict[str, Any], seconds: float
    ) -> list[float]:
        """What a finished training is worth; kept in its folder."""
        objectives = self.definition.objectives
        found = outcome(self.trial(point), objectives)
        facts = {"values": found, "seconds": seconds, "parameters": values}
        with whole_file(self.trial(point) / RESULT, text=True) as stream:
            stream.write(json.dumps(facts, indent=1, default=str))
        pairs = zip((each.label for each in objectives), found, strict=True)
        logger.info("Point %d gave %s", point, _on_one_line(dict(pairs)))
        return found

    def result(self, point: int) -> dict[str, Any] | None:
        """What :meth:`measure` kept; None if the point was not finished."""
        try:
            text = (self.trial(point) / RESULT).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        return json.loads(text)


def _check_same(path: Path, old: _Study, new: _Study) -> None:
    before, now = old.definition.what_counts(), new.definition.what_counts()
    other = [key for key in now if now[key] != before[key]]
    if old.base_yaml != new.base_yaml:
        other.append("base (its content)")
    if other:
        raise InputError(
            f"{path}: the study there was begun with another "
            f"{', '.join(other)}. Give the same to join it, or choose "
            "another --study-folder."
        )


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until nobody else makes the study or its tables."""
    with open(path / ".lock", "a", encoding="utf-8") as stream:
        with suppress(OSError):  # some shared folders cannot
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _on_one_line(values: dict[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


# ---- Attempts --------------------------------------------------------------


def by_point(trials: Sequence[FrozenTrial]) -> dict[int, list[FrozenTrial]]:
    """The attempts at every point that was begun, oldest first."""
    first_of = RetryHeartbeatStaleTrialCallback.retried_trial_number
    points: dict[int, int] = {}  # by the number of its first trial
    attempts: dict[int, list[FrozenTrial]] = {}
    with quiet():
        for trial in sorted(trials, key=lambda trial: trial.number):
            first = first_of(trial)
            point = points.setdefault(
                trial.number if first is None else first, len(points)
            )
            attempts.setdefault(point, [])
            if "dropped" not in trial.user_attrs:
                attempts[point].append(trial)
    return attempts


def given_up(tried: Sequence[FrozenTrial], definition: Definition) -> bool:
    """Whether a point of which every attempt failed is not tried again.

    Optuna hands the attributes of a trial on to the one that repeats it.
    """
    facts = tried[-1].user_attrs
    crashed = facts.get("crashed", 0)
    lost = len(tried) - crashed - facts.get("stopped", 0)
    return (
        "refused" in facts or crashed >= definition.crashes or lost >= _MAX_LOST
    )


class _Over(Exception):
    """A trial that gave nothing, for the reason that it was told."""


class Worker:
    """Takes points of a study, one after the other, and trains them."""

    def __init__(
        self,
        folder: StudyFolder,
        stop: threading.Event,
        run_options: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.definition = folder.definition
        self.stop = stop
        self.run_options = list(run_options)
        self.study = folder.open()

    def work(self, wait: bool = True) -> None:
        """Train points until there is none left.

        With ``wait`` it stays while others are at work, to take over the
        point of one that dies.
        """
        with quiet():
            while not self.stop.is_set():
                self._tidy_up()
                tried = by_point(self.study.get_trials(deepcopy=False))
                states = {t.state for each in tried.values() for t in each}
                if (
                    TrialState.WAITING in states
                    or len(tried) < self.definition.trials
                ):
                    self._take_one()
                elif not wait or TrialState.RUNNING not in states:
                    return
                else:
                    self.stop.wait(_WAIT_S)

    def _tidy_up(self) -> None:
        """Fail the trials of dead workers, and queue what must be repeated.

        Two workers may queue a point at once: see :meth:`_claim`.
        """
        optuna.storages.fail_stale_trials(self.study)
        # Optuna misses those that died before their first heartbeat.
        latest = datetime.datetime.now() - datetime.timedelta(
            seconds=self.definition.stale_s + 2 * _SETTLED_S
        )
        for trial in self.study.get_trials(False, (TrialState.RUNNING,)):
            settled = trial.user_attrs.get("settled") == trial.number
            if not settled and trial.datetime_start < latest:
                self.study.tell(
                    trial.number, state=TrialState.FAIL, skip_if_finished=True
                )
        again = RetryHeartbeatStaleTrialCallback()
        for point, tried in by_point(self.study.trials).items():
            if (
                tried
                and point < self.definition.trials
                and all(trial.state == TrialState.FAIL for trial in tried)
                and not given_up(tried, self.definition)
            ):
                again(self.study, tried[-1])

    def _take_one(self) -> None:
        try:
            self.study.optimize(self._objective, n_trials=1, catch=(_Over,))
        except (ValueError, UpdateFinishedTrialError) as error:
            # Another worker took this one for dead and has the point now.
            mine = isinstance(error, ValueError)
            if mine and "Cannot tell a FAIL trial" not in str(error):
                raise
            logger.warning("A trial was ended by another worker meanwhile.")

    def _objective(self, trial: optuna.Trial) -> list[float]:
        point = self._claim(trial)
        self.study.sampler = self.folder.sampler(point)
        space = self.definition.space.items()
        values = {key: each.suggest(key, trial) for key, each in space}
        kept = self.folder.result(point)
        if kept is not None and kept["parameters"] == values:
            return kept["values"]  # its worker died before it could tell
        watch = _Watch(self, trial, self.folder.trial(point) / "train_log.txt")
        ended = self.folder.train(
            point, values, self.run_options, self.stop, watch
        )
        if watch.pruned:
            logger.info("Point %d: pruned.", point)
            raise optuna.TrialPruned
        if watch.taken:
            raise _Over
        if ended.by_us:
            self._fail(trial, "stopped", "its worker was told to stop")
        if ended.status:
            refused = ended.status == EXIT_STATUS
            self._fail(trial, "refused" if refused else "crashed", _said(ended))
        try:
            found = self.folder.measure(point, values, ended.seconds)
        except InputError as error:
            self._fail(trial, "refused", str(error))
        # Told the values of a trial that another worker ended, Optuna asserts.
        if watch.look():
            raise _Over
        return found

    def _claim(self, trial: optuna.Trial) -> int:
        """The point of a trial, if nobody else has it."""
        trials = self.study.get_trials(deepcopy=False)
        point, tried = next(
            (point, tried)
            for point, tried in by_point(trials).items()
            if trial.number in [each.number for each in tried]
        )
        trial.set_user_attr("point", point)
        if point >= self.definition.trials:  # two asked for the last one
            self._fail(trial, "stopped", "it is none of the study's points")
        others = (each for each in tried if each.number != trial.number)
        if any(each.state in (*ENDED, TrialState.RUNNING) for each in others):
            trial.set_user_attr("dropped", True)
            raise _Over
        trial.set_user_attr("error", "its worker died")  # unless it says more
        return point

    def _fail(self, trial: optuna.Trial, reason: str, message: str) -> None:
        count = trial.user_attrs.get(reason, 0)
        trial.set_user_attr(reason, count + 1)
        trial.set_user_attr("error", message)
        last_line = message.strip().splitlines()[-1]
        point = trial.user_attrs["point"]
        logger.warning("Point %d: %s (%s).", point, reason, last_line)
        raise _Over


class _Watch:
    """Asked while a training runs; says whether to go on."""

    def __init__(self, worker: Worker, trial: optuna.Trial, log: Path) -> None:
        self.study, self.trial, self.log = worker.study, trial, log
        self.prunes = worker.definition.prune is not None
        self.taken = self.pruned = self._settled = False
        self._epoch = 0
        self._begin = self._looked = self._asked = time.monotonic()

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self._settled and now - self._begin >= _SETTLED_S:
            self._settled = True
            self.trial.set_user_attr("settled", self.trial.number)
        if now - self._asked >= _ASK_S:
            self._asked = now
            self.look()
        if self.prunes and now - self._looked >= _LOOK_S:
            self._looked = now
            self.pruned = self._is_hopeless()
        return not (self.taken or self.pruned)

    def look(self) -> bool:
        """Whether another worker has taken the trial meanwhile."""
        mine = self.study.get_trials(deepcopy=False)[self.trial.number]
        self.taken = mine.state != TrialState.RUNNING
        return self.taken

    def _is_hopeless(self) -> bool:
        try:
            wers = valid_wers(self.log.read_text(encoding="utf-8"))
        except OSError:
            return False  # not written yet
        for epoch in sorted(epoch for epoch in wers if epoch > self._epoch):
            self._epoch = epoch
            self.trial.report(wers[epoch], epoch)
            if self.trial.should_prune():
                return True
        return False


def _said(ended: Ended) -> str:
    lines = ended.message.splitlines()[-_SAID:]
    return "\n".join([f"exit status {ended.status}", *lines])


# ---- Ways to work ----------------------------------------------------------


def join(
    folder: str | Path, run_options: Sequence[str] = (), wait: bool = True
) -> bool:
    """Join a study and work until nothing is left; False if told to stop."""
    with told_to_stop() as stop:
        Worker(StudyFolder(Path(folder)), stop, run_options).work(wait)
    return not stop.is_set()


def check_single(definition: Definition) -> None:
    """Refuse what jobs that know nothing of each other cannot do."""
    if definition.prune or definition.sampler == "tpe":
        key = "prune" if definition.prune else "sampler: tpe"
        raise InputError(
            f"{key} looks at other trials' results, which single points do "
            "not know; leave it out, or give --storage, a database that all "
            "nodes reach, and start workers."
        )


def train_point(
    folder: str | Path, point: int, run_options: Sequence[str] = ()
) -> bool:
    """Train one point without a storage; False if told to stop.

    Its values follow from the seed and its number. It resumes by itself, and
    is done at once when it was done before.
    """
    study = StudyFolder(Path(folder))
    definition = study.definition
    check_single(definition)
    if not 0 <= point < definition.trials:
        raise InputError(
            f"--point: {point} is none of the points 0 to "
            f"{definition.trials - 1}."
        )
    if study.result(point) is not None:
        return True
    values = study.points[point]
    with told_to_stop() as stop:
        ended = study.train(point, values, run_options, stop)
    if ended.by_us:
        return False
    if ended.status:
        raise InputError(f"point {point}: {_said(ended)}")
    study.measure(point, values, ended.seconds)
    return True


@exits_on_input_error
def main() -> None:
    """A worker as a process of its own: ``study FOLDER [--option=value]``."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        join(sys.argv[1], sys.argv[2:])
    except KeyboardInterrupt:  # the command that started it says so
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
