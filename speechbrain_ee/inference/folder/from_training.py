"""The output folder of a finished run as an inference folder.

Everything is taken from files: the architecture from ``hyperparams.yaml``
(read as plain data), the average of the best checkpoints that evaluation
uses, tokenizer, learned selector, and the traces of development and test
sets. Nothing in them is executed, unless that is asked for.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from speechbrain_ee.data.words import decode, pieces_of
from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.calibrate import (
    WORTH,
    candidates,
    default_of,
    shipped_policies,
)
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.criteria.combined import ZScores
from speechbrain_ee.exits.criteria.text import add_plausibility
from speechbrain_ee.exits.selector.learned import LearnedSelector
from speechbrain_ee.exits.selector.selection import COMBINED
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.inference.bench.data import read_spoken
from speechbrain_ee.inference.folder.card import default_words, model_card
from speechbrain_ee.inference.folder.config import check_sample_rate
from speechbrain_ee.inference.folder.measured import time_shares
from speechbrain_ee.inference.folder.model_folder import (
    POLICY_SELECTOR,
    ModelFolder,
    check_outputs,
    write_model_folder,
)
from speechbrain_ee.inference.folder.parts import OF_SELECTOR
from speechbrain_ee.inference.folder.shipped import (
    truncated_folder,
    without_transcripts,
)
from speechbrain_ee.inference.folder.training_run import TrainingRun
from speechbrain_ee.inference.live.runner import LiveRunner
from speechbrain_ee.inference.policies import LAST, Policies
from speechbrain_ee.training.checkpoints import read_default, write_default

logger = logging.getLogger(__name__)

FOLDER_NAME = "model"
TIMED = 32  # utterances on which policies are timed


def export_training(
    hparams: Mapping[str, Any], debug: bool = False
) -> Path | None:
    """Write the inference folder of a run that has just ended.

    What cannot be written is no reason to lose a finished training: it is
    reported as a warning.

    Arguments
    ---------
    hparams : mapping
        Uses ``output_folder``.
    debug : bool
        A debug run, whose checkpoints were temporary: there is nothing to
        write.

    Returns
    -------
    Path, optional
        ``<output_folder>/model``; None if it could not be written.
    """
    if debug:
        logger.info(
            "The debug run went through: preparation, training, evaluation "
            "and report work. Its checkpoints were temporary, so there is no "
            "inference folder; --debug_persistently keeps both."
        )
        return None
    output_folder = Path(hparams["output_folder"])
    try:
        return export_run(output_folder, output_folder / FOLDER_NAME)
    except InputError as error:
        logger.warning("No inference folder was written: %s", error)
        return None


def choose_default(
    hparams: Mapping[str, Any],
    policies: Mapping[str, ExitPolicy],
    trace: Trace | None,
    debug: bool = False,
) -> tuple[ExitPolicy | None, str]:
    """Choose what the model of a run does by default, for report and exports.

    It is chosen once, by time on the development set, and written to
    ``<save_folder>/default_policy.json``: what the report marks is what
    every inference folder of the run does.

    Arguments
    ---------
    hparams : mapping
        Uses ``output_folder`` and ``save_folder``.
    policies : mapping of str to ExitPolicy
        What was calibrated, by name.
    trace : Trace, optional
        Of the development set.
    debug : bool
        A debug run, without checkpoints to time: compute decides.

    Returns
    -------
    policy : ExitPolicy or None
        None: the last exit.
    words : str
        Its name and why it is the default, for people.
    """
    default, reason = default_of(policies, trace)
    try:
        if policies and not debug:
            found = run_folder(hparams["output_folder"], timed=True)
            default, reason = found.default_policy, found.default_reason
    except InputError as error:  # a model of the user's own, say
        logger.warning(
            "The default policy is chosen by multiply-accumulates: %s", error
        )
    write_default(Path(hparams["save_folder"]), default, reason)
    return policies.get(default or ""), default_words(default, reason)


def export_run(
    output_folder: str | Path, out: str | Path, exits: int | None = None
) -> Path:
    """Write the inference folder of a finished run.

    Arguments
    ---------
    output_folder : str or Path
        Where training wrote; it may have been moved since.
    out : str or Path
        Target.
    exits : int, optional
        Truncate the model at this exit.

    Returns
    -------
    Path
        The inference folder.

    Raises
    ------
    InputError
        If the run is not complete, or the folder cannot be written.
    """
    folder = run_folder(output_folder, exits, timed=True)
    return write_model_folder(out, folder, model_card(folder))


def _timed(folder: ModelFolder, run: TrainingRun) -> ModelFolder:
    """The folder, its default chosen by the clock, on development data.

    As it is where no policy is worth timing, or the audio is gone.
    """
    chosen = candidates(folder.policies, folder.calibration)
    chosen = [name for name, share in chosen.items() if share <= 1 - WORTH]
    if not chosen:
        return folder
    data = run.development_manifest()
    try:
        spoken = read_spoken(data, folder.sample_rate, TIMED)
    except InputError as error:
        logger.warning(
            "The default policy is chosen by multiply-accumulates, as the "
            "development set cannot be heard: %s",
            error,
        )
        return folder
    runner = LiveRunner(
        folder.model,
        pieces_of(folder.tokenizer),
        partial(decode, folder.tokenizer),
        folder.sample_rate,
        folder.decoding,
        folder.search,
    )
    resolve = Policies(
        folder.exit_layers,
        folder.policies,
        None,
        folder.selector,
        folder.combination,
    ).resolve
    times = time_shares(
        runner,
        {name: resolve(name) for name in chosen},
        resolve(LAST),
        [one.wav_S for one in spoken],
    )
    default, reason = default_of(folder.policies, folder.calibration, times)
    logger.info("Default policy: %s, %s", default or "the last exit", reason)
    return replace(folder, default_policy=default, default_reason=reason)


def run_folder(
    output_folder: str | Path,
    exits: int | None = None,
    trust: bool = False,
    timed: bool = False,
) -> ModelFolder:
    """What an inference folder of a finished run holds, in memory.

    Arguments
    ---------
    output_folder : str or Path
        Where training wrote; it may have been moved since.
    exits : int, optional
        Truncate the model at this exit.
    trust : bool
        Build a model that no inference folder can hold (of classes of the
        user's own, for example) by executing what the YAML says of it, and
        fetch the configuration of a pre-trained encoder that it names.
    timed : bool
        Choose the default policy by the clock, unless the run has one: that
        which its report names.

    Returns
    -------
    ModelFolder

    Raises
    ------
    InputError
        If the run is not complete.
    """
    run = TrainingRun(Path(output_folder))
    model, architecture = run.model(trust)
    trace = run.development_trace(model)
    selector = run.selector(trace)
    combination = _combination(trace, selector)
    policies, calibration, known = {}, None, None
    if trace is not None:
        calibration = without_transcripts(trace)
        known = read_default(run.save_folder)
        policies = run.policies(model, selector)
        if policies is None:
            policies, known = _calibrated(trace, run, selector), None
    default, reason = known or default_of(policies, calibration)
    folder = ModelFolder(
        path=run.folder,
        name=run.value("system_name", kind=str),
        model=model,
        architecture=architecture,
        tokenizer=run.tokenizer(),
        sample_rate=check_sample_rate(
            run.value("sample_rate"), run.hparams.path
        ),
        decoding=run.decoding,
        search=run.search(),
        policies=policies,
        default_policy=default,
        default_reason=reason,
        selector=selector,
        combination=combination,
        calibration=calibration,
        facts=run.facts(),
        verified=run.verified,
    )
    check_outputs(folder.path, model)
    if exits is not None:
        whole, folder = folder, truncated_folder(folder, exits)
        known = known if folder is whole else None
    if timed and known is None:
        folder = _timed(folder, run)
    measured = run.measured(model, folder)
    return replace(folder, measured=measured)


def _calibrated(
    trace: Trace, run: TrainingRun, selector: LearnedSelector | None
) -> dict[str, ExitPolicy]:
    """Policies of a run whose evaluation, of an earlier version, left none."""
    budget = run.value("exit_budget", None, str)
    return {
        name: policy
        for name, policy in shipped_policies(
            trace, budget, selector=POLICY_SELECTOR
        ).items()
        if selector is not None or policy.criterion not in OF_SELECTOR
    }


def _combination(
    trace: Trace | None, selector: LearnedSelector | None
) -> ZScores | None:
    """The same as training made it, from the same trace."""
    if trace is None or selector is None:
        return None
    model = selector.language_model
    if model is not None and trace.evidence.hyps is not None:
        trace = add_plausibility(trace, model)
    known = {"agreement"} if trace.evidence.hyps is not None else set()
    known |= set(trace.evidence_names)
    names = [name for name in COMBINED if name in known]
    return ZScores.fit(trace, names) if names else None
