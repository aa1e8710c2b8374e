"""Who works on which point, and what became of it: Optuna's study as a book.

A *point* is one choice of values, counted from 0. A *trial* is one attempt at
a point. A worker that takes a point writes one entry into the journal, which
holds everything about the trial; an entry is either there or not, and their
order is the same for everybody. So a point is never between two stools: it
has a trial that ended well, one that runs, or is to be taken.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from speechbrain_ee.sweeps.beats import Heartbeat
from speechbrain_ee.sweeps.journal import alone
from speechbrain_ee.sweeps.sampling import draw
from speechbrain_ee.sweeps.study import NAME, StudyFolder

logger = logging.getLogger(__name__)

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
# Why a trial failed; a point is tried again after all but `refused`.
LOST, STOPPED, CRASHED, REFUSED = "lost", "stopped", "crashed", "refused"
_MAX_LOST = 20  # workers that may die over a point before it is given up


@dataclass(frozen=True)
class Claim:
    """A point that this worker has taken.

    Arguments
    ---------
    point : int
        Counted from 0.
    trial_id : int
        Of the storage.
    values : dict of str to object
        By key of the YAML.
    """

    point: int
    trial_id: int
    values: dict[str, Any]


def by_point(
    trials: Sequence[FrozenTrial], points: int
) -> dict[int, list[FrozenTrial]]:
    """The attempts at every point, oldest first.

    Arguments
    ---------
    trials : sequence of optuna.trial.FrozenTrial
        Of a study.
    points : int
        How many there are.

    Returns
    -------
    dict of int to list of FrozenTrial
    """
    attempts: dict[int, list[FrozenTrial]] = defaultdict(list)
    for trial in sorted(trials, key=lambda trial: trial.number):
        # one without a point was put there by hand, with a dashboard
        attempts[trial.user_attrs.get("point", -1)].append(trial)
    return {point: attempts[point] for point in range(points)}


class Ledger:
    """The study, as one worker writes it.

    Arguments
    ---------
    folder : StudyFolder
        The study.
    beat : Heartbeat
        This worker's.
    """

    def __init__(self, folder: StudyFolder, beat: Heartbeat) -> None:
        self.folder = folder
        self.definition = folder.definition
        self.beat = beat
        self.study, self.study_id = folder.open()
        # the book is kept entry by entry; the public study cannot do that
        self.storage = folder.storage

    def claim(self) -> Claim | None:
        """Take the first point that nobody works on.

        Points of workers that died come back first.

        Returns
        -------
        Claim or None
            None if there is nothing to take, at the moment or any more.
        """
        with alone(self.folder.path / "claim"):
            attempts = self._attempts()
            for trial in self._running(attempts):
                if not self.beat.lives(trial.user_attrs["worker"]):
                    self._fail(trial._trial_id, LOST, "its worker died")
                    attempts = self._attempts()
            for point, tried in attempts.items():
                if self._open(tried):
                    claim = self._take(point, tried)
                    break
            else:
                return None
        return claim if self._mine(claim) else self.claim()

    def finished(self) -> bool:
        """Whether no point is left to take, now or later."""
        return not any(
            self._open(tried) or _runs(tried)
            for tried in self._attempts().values()
        )

    def succeed(
        self, claim: Claim, values: Sequence[float], seconds: float
    ) -> bool:
        """Write what a trial gave.

        Arguments
        ---------
        claim : Claim
            The trial.
        values : sequence of float
            One per objective.
        seconds : float
            How long it took here.

        Returns
        -------
        bool
            False if it was taken from this worker in the meantime.
        """
        return self._end(
            claim.trial_id, TrialState.COMPLETE, values, {"seconds": seconds}
        )

    def give_up(self, claim: Claim, seconds: float) -> bool:
        """Write that a trial was pruned; it has its last epoch's WER.

        Arguments
        ---------
        claim : Claim
            The trial.
        seconds : float
            How long it took here.

        Returns
        -------
        bool
            False if it was taken from this worker in the meantime.
        """
        epochs = self.storage.get_trial(claim.trial_id).intermediate_values
        return self._end(
            claim.trial_id,
            TrialState.PRUNED,
            [epochs[max(epochs)]],
            {"seconds": seconds},
        )

    def fail(self, claim: Claim, reason: str, message: str) -> None:
        """Write why a trial failed.

        Arguments
        ---------
        claim : Claim
            The trial.
        reason : str
            STOPPED, CRASHED or REFUSED.
        message : str
            For people.
        """
        self._fail(claim.trial_id, reason, message)

    def mine(self, claim: Claim) -> bool:
        """Whether a trial is still this worker's.

        Arguments
        ---------
        claim : Claim
            The trial.

        Returns
        -------
        bool
        """
        return not self.storage.get_trial(claim.trial_id).state.is_finished()

    def should_prune(self, claim: Claim, wers: dict[int, float]) -> bool:
        """Note the epochs of a trial and ask whether to go on.

        Arguments
        ---------
        claim : Claim
            The trial.
        wers : dict of int to float
            Validation WER by epoch.

        Returns
        -------
        bool
            True to give it up.
        """
        known = self.storage.get_trial(claim.trial_id).intermediate_values
        for epoch in sorted(wers.keys() - known.keys()):
            self.storage.set_trial_intermediate_value(
                claim.trial_id, epoch, wers[epoch]
            )
            trial = self.storage.get_trial(claim.trial_id)
            if self.study.pruner.prune(self.study, trial):
                return True
        return False

    def _attempts(self) -> dict[int, list[FrozenTrial]]:
        trials = self.storage.get_all_trials(self.study_id, deepcopy=False)
        return by_point(trials, self.definition.trials)

    def _running(
        self, attempts: dict[int, list[FrozenTrial]]
    ) -> list[FrozenTrial]:
        every = (trial for tried in attempts.values() for trial in tried)
        return [trial for trial in every if trial.state == TrialState.RUNNING]

    def _open(self, tried: Sequence[FrozenTrial]) -> bool:
        if any(trial.state in ENDED for trial in tried) or _runs(tried):
            return False
        reasons = [trial.user_attrs.get("reason") for trial in tried]
        return (
            REFUSED not in reasons
            and reasons.count(CRASHED) < self.definition.crashes
            and reasons.count(LOST) < _MAX_LOST
        )

    def _take(self, point: int, tried: Sequence[FrozenTrial]) -> Claim:
        space = self.definition.space
        facts = {"point": point, "worker": self.beat.worker}
        if tried:
            values = {
                parameter.key: parameter.meant(tried[-1].params[parameter.key])
                for parameter in space
            }
            facts["retried_from"] = tried[-1].number
        else:
            values = draw(
                self.definition.sampler,
                self.definition.seed,
                point,
                space,
                optuna.load_study(study_name=NAME, storage=self.storage),
            )
        trial = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params={each.key: each.shown(values[each.key]) for each in space},
            distributions={each.key: each.distribution for each in space},
            user_attrs=facts,
        )
        trial_id = self.storage.create_new_trial(self.study_id, trial)
        return Claim(point, trial_id, values)

    def _mine(self, claim: Claim) -> bool:
        """Of two that took a point, the first one has it.

        The lock keeps others away unless its holder was stopped for longer
        than the grace period; then the order of entries decides.
        """
        running = [
            trial._trial_id
            for trial in self._attempts()[claim.point]
            if trial.state == TrialState.RUNNING
        ]
        if running[:1] == [claim.trial_id]:
            return True
        self._fail(claim.trial_id, STOPPED, "another worker was faster")
        return False

    def _fail(self, trial_id: int, reason: str, message: str) -> None:
        facts = {"reason": reason, "error": message}
        if self._end(trial_id, TrialState.FAIL, None, facts):
            logger.warning(
                "Point %d: %s (%s).",
                self.storage.get_trial(trial_id).user_attrs["point"],
                reason,
                message.strip().splitlines()[-1],
            )

    def _end(
        self,
        trial_id: int,
        state: TrialState,
        values: Sequence[float] | None,
        facts: dict[str, Any],
    ) -> bool:
        try:
            for key, value in facts.items():
                self.storage.set_trial_user_attr(trial_id, key, value)
            return self.storage.set_trial_state_values(trial_id, state, values)
        except optuna.exceptions.UpdateFinishedTrialError:
            logger.warning("A trial was ended by another worker meanwhile.")
            return False


def _runs(tried: Sequence[FrozenTrial]) -> bool:
    return any(trial.state == TrialState.RUNNING for trial in tried)
