"""A worker: takes points of a study, one after the other, and trains them.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from speechbrain_ee.errors import (
    EXIT_STATUS,
    INTERRUPTED,
    InputError,
    exits_on_input_error,
)
from speechbrain_ee.files import whole_file
from speechbrain_ee.sweeps.beats import Heartbeat
from speechbrain_ee.sweeps.ledger import (
    CRASHED,
    REFUSED,
    STOPPED,
    Claim,
    Ledger,
)
from speechbrain_ee.sweeps.outcome import outcome
from speechbrain_ee.sweeps.pruning import valid_wers
from speechbrain_ee.sweeps.study import StudyFolder
from speechbrain_ee.sweeps.training_run import Ended, run_training

logger = logging.getLogger(__name__)

TRIAL_YAML = "trial.yaml"
_WAIT_S = 1.0  # before asking again whether there is something to take
_LOOK_S = 1.0  # between looks at the log of a training
_ASK_S = 10.0  # between looks whether a trial is still one's own
_SAID = 5  # last lines of a training's output, in messages


class Worker:
    """One worker.

    Arguments
    ---------
    folder : StudyFolder
        The study.
    beat : Heartbeat
        Its sign of life.
    stop : threading.Event
        Set: end the trial, give the point back, and leave.
    run_options : sequence of str
        Further arguments of the training script, such as ``--device=cuda``.
    """

    def __init__(
        self,
        folder: StudyFolder,
        beat: Heartbeat,
        stop: threading.Event,
        run_options: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.stop = stop
        self.run_options = list(run_options)
        self.ledger = Ledger(folder, beat)

    def work(self, wait: bool = True) -> None:
        """Train points until there is none left.

        Arguments
        ---------
        wait : bool
            Whether to stay while others are at work, to take over the point
            of one that dies.
        """
        while not self.stop.is_set():
            claim = self.ledger.claim()
            if claim is not None:
                self._train(claim)
            elif not wait or self.ledger.finished():
                return
            else:
                self.stop.wait(_WAIT_S)

    def _train(self, claim: Claim) -> None:
        output = self.folder.trial(claim.point)
        text = self.folder.yaml(claim.values, output)
        with whole_file(output / TRIAL_YAML) as stream:
            stream.write(text.encode())
        logger.info("Point %d: %s", claim.point, shown(claim.values))
        begin = time.monotonic()
        watch = _Watch(self.ledger, claim, output / "train_log.txt")
        ended = run_training(
            [
                sys.executable,
                self.folder.definition.script,
                str(output / TRIAL_YAML),
                *self.run_options,
            ],
            output,
            self.folder.start,
            self.stop,
            watch,
        )
        self._book(claim, ended, watch, time.monotonic() - begin)

    def _book(
        self, claim: Claim, ended: Ended, watch: "_Watch", seconds: float
    ) -> None:
        if watch.taken:
            return
        if watch.pruned:
            logger.info("Point %d: pruned.", claim.point)
            self.ledger.give_up(claim, seconds)
        elif ended.by_us:
            self.ledger.fail(claim, STOPPED, "its worker was told to stop")
        elif ended.status:
            lines = ended.message.splitlines()[-_SAID:]
            words = "\n".join([f"exit status {ended.status}", *lines])
            refused = ended.status == EXIT_STATUS
            self.ledger.fail(claim, REFUSED if refused else CRASHED, words)
        else:
            self._measure(claim, seconds)

    def _measure(self, claim: Claim, seconds: float) -> None:
        objectives = self.folder.definition.objectives
        output = self.folder.trial(claim.point)
        try:
            values = outcome(output, objectives)
        except InputError as error:
            self.ledger.fail(claim, REFUSED, str(error))
            return
        self.ledger.succeed(claim, values, seconds)
        labels = (objective.label for objective in objectives)
        pairs = dict(zip(labels, values, strict=True))
        logger.info("Point %d gave %s", claim.point, shown(pairs))


class _Watch:
    """Asks while a training runs; called, it says whether to go on."""

    def __init__(self, ledger: Ledger, claim: Claim, log: Path) -> None:
        self.ledger, self.claim, self.log = ledger, claim, log
        self.prunes = ledger.definition.prune is not None
        self.taken = self.pruned = False
        self._looked = self._asked = time.monotonic()

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self._asked >= _ASK_S:
            self._asked = now
            self.taken = not self.ledger.mine(self.claim)
        if self.prunes and now - self._looked >= _LOOK_S:
            self._looked = now
            self.pruned = self._hopeless()
        return not (self.taken or self.pruned)

    def _hopeless(self) -> bool:
        try:
            log = self.log.read_text(encoding="utf-8")
        except OSError:
            return False  # not written yet
        return self.ledger.should_prune(self.claim, valid_wers(log))


def shown(values: dict[str, object]) -> str:
    """Values on one line.

    Arguments
    ---------
    values : dict of str to object
        By name.

    Returns
    -------
    str

    Example
    -------
    >>> shown({"lr": 0.1, "exit_layers": [2, 4]})
    'lr=0.1, exit_layers=[2, 4]'
    """
    return ", ".join(f"{name}={value}" for name, value in values.items())


def join(
    folder: str | Path, run_options: Sequence[str] = (), wait: bool = True
) -> bool:
    """Join a study and work until there is nothing left.

    Arguments
    ---------
    folder : str or Path
        The study's.
    run_options : sequence of str
        Further arguments of the training script.
    wait : bool
        Whether to stay while others are at work.

    Returns
    -------
    bool
        False if it was told to stop.

    Raises
    ------
    KeyboardInterrupt
        If it was told so by Ctrl-C; its point was given back.
    """
    study = StudyFolder(Path(folder))
    with (
        told_to_stop() as stop,
        Heartbeat(study.path / "workers", study.definition.stale_s) as beat,
    ):
        Worker(study, beat, stop, run_options).work(wait)
    return not stop.is_set()


@contextmanager
def told_to_stop(
    then: Callable[[], None] = lambda: None,
) -> Iterator[threading.Event]:
    """SIGTERM and SIGINT ask politely: there is time to put things away.

    Arguments
    ---------
    then : callable
        What is done at once.

    Yields
    ------
    threading.Event
        Set when asked.

    Raises
    ------
    KeyboardInterrupt
        Behind the block, if it was SIGINT.
    """
    stop = threading.Event()
    asked: list[int] = []

    def ask(number: int, _: object) -> None:
        asked.append(number)
        stop.set()
        then()

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if signal.SIGINT in asked:
        raise KeyboardInterrupt


@exits_on_input_error
def main() -> None:
    """A worker as a process of its own: ``worker STUDY [--option=value]``."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        join(sys.argv[1], sys.argv[2:])
    except KeyboardInterrupt:  # the command that started it says so
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
