"""The output folder of a finished run as an inference folder.

Everything is taken from files: the architecture from ``hyperparams.yaml``
(read as plain data), the average of the best checkpoints that evaluation
uses, tokenizer, learned selector, and the traces of development and test
sets. Nothing in them is executed, unless that is asked for.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import ruamel.yaml
import torch
from sentencepiece import SentencePieceProcessor
from speechbrain.utils.checkpoints import METAFNAME, Checkpoint
from tqdm import tqdm

from speechbrain_ee.data.preparation import dev_set_manifest
from speechbrain_ee.errors import InputError, one_line
from speechbrain_ee.evaluation.analysis import choice_of
from speechbrain_ee.evaluation.calibrate import (
    SELECTOR_FILE,
    WORTH,
    candidates,
    default_of,
    shipped_policies,
)
from speechbrain_ee.evaluation.curves import measure
from speechbrain_ee.exits.calibration.policy_file import ExitPolicy
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.criteria.combined import ZScores
from speechbrain_ee.exits.criteria.text import add_plausibility
from speechbrain_ee.exits.decoding import (
    BY_ATTENTION,
    DECODINGS,
    GREEDY,
    SearchOptions,
)
from speechbrain_ee.exits.selector.selector import COMBINED, LearnedSelector
from speechbrain_ee.exits.selector.selector_file import read_selector
from speechbrain_ee.exits.trace import Trace, UtteranceRecord
from speechbrain_ee.exits.trace_file import read_trace
from speechbrain_ee.files import compose_yaml
from speechbrain_ee.inference.folder.architecture import (
    RUN_WAY_OUT,
    Architecture,
    Tagged,
    architecture_of,
    read_hyperparams,
)
from speechbrain_ee.inference.folder.model_folder import (
    CONFIG_FILE,
    OF_SELECTOR,
    POLICY_SELECTOR,
    SEARCH_KEYS,
    Measured,
    ModelFolder,
    SampleRate,
    check_outputs,
    default_words,
    model_card,
    read_model_folder,
    read_policies,
    truncated_folder,
    up_to_layer,
    write_model_folder,
)
from speechbrain_ee.inference.folder.weights import (
    LEFT_OUT,
    build_bounded,
    check_finite,
    global_norms,
)
from speechbrain_ee.inference.hypothesis import read_tokenizer
from speechbrain_ee.inference.live import LivePolicy
from speechbrain_ee.inference.policies import LAST
from speechbrain_ee.inference.recordings import read_spoken
from speechbrain_ee.inference.runner import LiveRunner
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.schema import Count, convert
from speechbrain_ee.training import checkpoints
from speechbrain_ee.training.checkpoints import POLICY_FOLDER

logger = logging.getLogger(__name__)

FOLDER_NAME = "model"
RUN = "hyperparams.yaml"
TIMED = 32  # utterances on which policies are timed
_TRACE = ".jsonl.gz"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of ``hyperparams.yaml`` beside the model; other keys are
    of training alone.
    """

    system_name: str
    output_folder: str
    save_folder: str
    data_folder: str
    train_splits: list[str] | str | None = None
    dev_splits: list[str] | str | None
    valid_csv: str | None
    skip_prep: bool
    sample_rate: SampleRate
    token_type: str
    output_neurons: Count
    average_checkpoints: Count
    decodings: list[str] | None = None
    exit_budget: str | None = None
    error_unit: str = "word"
    search: Any = None
    regime: Any = None


class TrainingRun:
    """What the output folder of a run holds; it may have been moved since."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.path = folder / RUN
        self.hparams = read_hyperparams(self.path)
        self.settings = convert(self.hparams, Settings, self.path, RUN_WAY_OUT)
        self.save_folder = checkpoints.moved_save_folder(
            folder, self.settings.save_folder, self.settings.output_folder
        )
        self.decoding = (self.settings.decodings or [GREEDY])[0]
        self.verified = False  # by a fingerprint of its checkpoints

    def model(self, trust: bool) -> tuple[EarlyExitModel, Architecture | None]:
        """The model with the weights that evaluation uses.

        Trusted, a YAML whose model no folder can hold is executed, and what
        it names is fetched; it then is not known as plain data.
        """
        found = self._checkpoints()
        unloadable = f"{self.save_folder}: its checkpoints cannot be loaded"
        with _explained(unloadable):
            weights = {
                name: tensor
                for name, tensor in checkpoints.averaged_weights(found).items()
                if not name.startswith(LEFT_OUT)
            }
        check_finite(self.save_folder, weights)
        shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        try:
            architecture = architecture_of(self.hparams, self.path, fetch=trust)
            model = build_bounded(architecture, shapes)
        except InputError:
            if not trust:
                raise
            model, architecture = _executed(self.path), None
        self.verified = checkpoints.check_checkpoints(
            self.save_folder,
            found,
            checkpoints.yaml_fingerprint(self.path.read_text(encoding="utf-8"))
            | checkpoints.backbone_fingerprint(model)
            | checkpoints.tokenizer_fingerprint(self.tokenizer()),
        )
        with _explained(f"{unloadable} into the model of hyperparams.yaml"):
            model.load_state_dict(weights, strict=True)
            for norm in global_norms(model).values():
                # SpeechBrain keeps the means of features beside the weights.
                path = found[0].path / "normalizer.ckpt"
                norm._load_statistics_dict(
                    torch.load(path, weights_only=True, map_location="cpu")
                )
        trained = _arguments(self.settings.regime).get("active_exits")
        if trained is not None:  # the exits above it are as they began
            model = model.truncated(trained)
            if architecture is not None:
                architecture = architecture.truncated(model.exit_layers)
        return model.eval(), architecture

    def _checkpoints(self) -> list[Checkpoint]:
        """Those that are averaged, of a whole epoch; the best first."""
        for path in self.save_folder.glob(f"*/{METAFNAME}"):
            compose_yaml(
                path, RUN_WAY_OUT
            )  # SpeechBrain's reader has no bounds
        # Numbers in them may be texts, or whatever else.
        with _explained(f"{self.save_folder}: its checkpoints do not compare"):
            found = checkpoints.best_checkpoints(
                self.save_folder, self.settings.average_checkpoints
            )
        if not found:
            raise InputError(
                f"{self.save_folder}: holds no checkpoint of a whole epoch; "
                f"{RUN_WAY_OUT}."
            )
        return found

    def tokenizer(self) -> SentencePieceProcessor:
        """SentencePiece's, as training made it."""
        size, kind = self.settings.output_neurons, self.settings.token_type
        name = Path(f"{size}_{kind}.model").name
        return read_tokenizer(self.save_folder / name, RUN_WAY_OUT)

    def search(self) -> SearchOptions:
        """How hypotheses are searched for; its numbers."""
        options: dict[str, Any] = {}
        if self.decoding in BY_ATTENTION:
            options = _arguments(self.settings.search)
        if options.get("scorers"):
            raise InputError(
                f"{self.path}, key search.scorers: language models "
                "are not kept in an inference folder; evaluate without them "
                "first (the best checkpoints stay), then export."
            )
        numbers = {key: options[key] for key in SEARCH_KEYS if key in options}
        kind = dict[str, bool | int | float]
        return SearchOptions(**convert(numbers, kind, self.path, RUN_WAY_OUT))

    def trace(self, name: str, model: EarlyExitModel) -> Trace | None:
        """The trace of a set; None if there is none for this model."""
        path = self.folder / "traces" / f"{name}{_TRACE}"
        if not path.exists():
            return None
        trace = read_trace(path)
        if not set(trace.header.exit_layers) <= set(model.exit_layers):
            logger.warning(
                "%s is left out: it has the exits after layers %s, the model "
                "%s.",
                path,
                list(trace.header.exit_layers),
                list(model.exit_layers),
            )
            return None
        return trace

    def development_manifest(self) -> Path:
        """The set that policies are calibrated on, where the run lies now."""
        named = Path(dev_set_manifest(msgspec.structs.asdict(self.settings)))
        moved = self.folder / named.name
        return moved if moved.exists() else named

    def selector(self, trace: Trace) -> LearnedSelector | None:
        """The learned selector, if there is one for the exits of a trace."""
        path = self.save_folder / SELECTOR_FILE
        found = read_selector(path) if path.exists() else None
        same = found and found.exit_layers == trace.header.exit_layers
        return found if same else None

    def policies(
        self,
        trace: Trace,
        model: EarlyExitModel,
        selector: LearnedSelector | None,
    ) -> dict[str, ExitPolicy]:
        """What evaluation calibrated, or, of a run of an earlier version,
        what it would have.
        """
        if not (self.save_folder / POLICY_FOLDER).is_dir():
            found = shipped_policies(
                trace, self.settings.exit_budget, selector=POLICY_SELECTOR
            )
            return {
                name: policy
                for name, policy in found.items()
                if selector is not None or policy.criterion not in OF_SELECTOR
            }
        name, _ = checkpoints.read_default(self.save_folder) or (None, "")
        place = self.save_folder / checkpoints.DEFAULT_FILE
        found = read_policies(self.save_folder, place, name, model, selector)
        return {
            name: replace(policy, selector=policy.selector and POLICY_SELECTOR)
            for name, policy in found.items()
        }

    def measured(
        self, whole: EarlyExitModel, folder: ModelFolder
    ) -> tuple[Measured, ...]:
        """What the folder's exits and policies give on the test sets."""
        rows: list[Measured] = []
        dev = self.development_manifest().stem
        for path in sorted((self.folder / "traces").glob(f"*{_TRACE}")):
            name = path.name.removesuffix(_TRACE)
            if name == dev or name.rpartition(".")[2] in DECODINGS:
                continue
            trace = self.trace(name, whole)
            if trace is not None and folder.exit_layers != whole.exit_layers:
                trace = up_to_layer(trace, folder.exit_layers[-1])
            if trace is not None:
                rows += measure_choices(
                    trace, folder.policies, folder.exit_layers
                )
        return tuple(rows)

    def facts(self) -> dict[str, str]:
        """What the card says of data and training."""
        settings, facts = self.settings, {}
        for key, splits in {
            "Training data": settings.train_splits,
            "Development data": settings.dev_splits,
        }.items():
            if splits:
                facts[key] = (
                    splits if isinstance(splits, str) else ", ".join(splits)
                )
        facts["Tokens"] = f"{settings.output_neurons}, {settings.token_type}"
        if settings.error_unit != "word":
            facts["WER"] = "is the character error rate (error_unit)"
        facts["Checkpoints averaged"] = str(settings.average_checkpoints)
        return facts


def _arguments(built: Any) -> dict[str, Any]:
    """The arguments of an object of a YAML; none if it has no such object."""
    value = built.value if isinstance(built, Tagged) else None
    return value if isinstance(value, dict) else {}


def _executed(path: Path) -> EarlyExitModel:
    """The model of a YAML that is trusted."""
    with _explained(f"{path}: its model cannot be built"):
        return checkpoints.build_model(
            ruamel.yaml.YAML().load(path.read_text("utf-8"))
        )


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Say what failed, whatever a damaged or hostile file raises."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        logger.debug("%s", what, exc_info=True)
        raise InputError(
            f"{what} ({one_line(error)}); {RUN_WAY_OUT}."
        ) from error


def measure_choices(
    trace: Trace,
    policies: Mapping[str, ExitPolicy],
    exit_layers: Sequence[int],
) -> tuple[Measured, ...]:
    """Measure all exits and all policies on the sets of a trace.

    Policies for other exits, or whose evidence the trace lacks, are left out.
    """
    rows = []
    for name in trace.labelled_sets:
        part = trace.subset(name)
        points = {}
        for place, layer in enumerate(trace.header.exit_layers):
            exit = list(exit_layers).index(layer) + 1
            points[f"exit {exit}"] = measure(part, np.full(len(part), place))
        given = {*part.evidence_names, "transcripts"}
        for key, policy in policies.items():
            fits = policy.exit_layers == trace.header.exit_layers
            if fits and set(get_criterion(policy.criterion).needs) <= given:
                choice_N, cost_NE = choice_of(part, policy)
                points[key] = measure(part, choice_N, None, cost_NE)
        rows += [
            Measured(
                name,
                choice,
                round(point.avg_layer, 4),
                round(point.wer, 4),
                None if point.avg_macs is None else round(point.avg_macs),
                len(part),
            )
            for choice, point in points.items()
        ]
    return tuple(rows)


def time_shares(
    runner: LiveRunner,
    policies: Mapping[str, LivePolicy],
    last: LivePolicy,
    waves: Sequence[torch.Tensor],
    most_s: float = 20.0,
) -> dict[str, float]:
    """What policies take of the time of the last exit, one thread.

    Each utterance is transcribed by itself, by all in turn, twice, of which
    the shorter time counts; after ``most_s`` no further one is begun.
    """
    tasks = {**policies, "": last}
    spent_s = dict.fromkeys(tasks, 0.0)
    threads, began_s = torch.get_num_threads(), time.perf_counter()
    torch.set_num_threads(1)
    try:
        for wave in tqdm(waves, desc="timing policies", disable=None):
            batch, whole = wave[None], torch.ones(1)
            runner.run(batch, whole, last)  # tables of this length
            took_s = dict.fromkeys(tasks, np.inf)
            for _ in range(2):
                for name, policy in tasks.items():
                    start_s = time.perf_counter()
                    runner.run(batch, whole, policy)
                    now_s = time.perf_counter()
                    took_s[name] = min(took_s[name], now_s - start_s)
            for name, seconds in took_s.items():
                spent_s[name] += seconds
            if time.perf_counter() - began_s > most_s:
                break
    finally:
        torch.set_num_threads(threads)
    return {name: round(spent_s[name] / spent_s[""], 2) for name in policies}


def without_transcripts(trace: Trace) -> Trace:
    """A trace of which nobody learns what was said, or by whom.

    References are as many dashes as they had words (or characters), names are
    numbers, those of speakers too.
    """
    records = []
    errors_NE, words_N = trace.errors_NE, trace.words_N
    speaker_N = trace.clusters.label_N + 1
    space = " " if trace.header.error_unit == "word" else ""
    for row, record in enumerate(trace.records):
        exits = tuple(
            replace(exit_, hyp=None, greedy=None, errors=int(errors))
            for exit_, errors in zip(record.exits, errors_NE[row])
        )
        records.append(
            UtteranceRecord(
                id=str(row + 1),
                set=record.set,
                ref=space.join("-" * int(words_N[row])),
                exits=exits,
                duration_s=record.duration_s,
                speaker=record.speaker and str(speaker_N[row]),
            )
        )
    return Trace(trace.header, tuple(records), trace.source)


def export_training(
    hparams: Mapping[str, Any], debug: bool = False
) -> Path | None:
    """Write the inference folder of a run that has just ended.

    What cannot be written is no reason to lose a finished training: it is
    reported as a warning.
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
    checkpoints.write_default(Path(hparams["save_folder"]), default, reason)
    return policies.get(default or ""), default_words(default, reason)


def export_run(
    output_folder: str | Path, out: str | Path, exits: int | None = None
) -> Path:
    """Write the inference folder of a finished run."""
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
    runner, policies = folder.live()
    times = time_shares(
        runner,
        {name: policies.resolve(name) for name in chosen},
        policies.resolve(LAST),
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

    The model is truncated at the exit ``exits``. Trusted, a model of classes
    of the user's own is built by executing what the YAML says of it. With
    ``timed`` the default policy is chosen by the clock, unless the run has
    one: that which its report names.
    """
    run = TrainingRun(Path(output_folder))
    if trust:
        logger.warning(
            "%s: what it says may be executed; do this with folders that you "
            "trust only.",
            run.path,
        )
    model, architecture = run.model(trust)
    check_outputs(run.folder, model)
    folder = ModelFolder(
        path=run.folder,
        name=run.settings.system_name,
        model=model,
        architecture=architecture,
        tokenizer=run.tokenizer(),
        sample_rate=run.settings.sample_rate,
        decoding=run.decoding,
        search=run.search(),
        facts=run.facts(),
        verified=run.verified,
    )
    trace, known = run.trace(run.development_manifest().stem, model), None
    if trace is None:
        logger.warning(
            "%s: no trace of the development set, so no policy is shipped; "
            "the model always goes to its last exit.",
            run.folder,
        )
    else:
        selector = run.selector(trace)
        folder = replace(
            folder,
            selector=selector,
            combination=_combination(trace, selector),
            policies=run.policies(trace, model, selector),
            calibration=without_transcripts(trace),
        )
        known = checkpoints.read_default(run.save_folder)
    default, reason = known or default_of(folder.policies, folder.calibration)
    folder = replace(folder, default_policy=default, default_reason=reason)
    if exits is not None:
        whole, folder = folder, truncated_folder(folder, exits)
        known = known if folder is whole else None
    if timed and known is None:
        folder = _timed(folder, run)
    return replace(folder, measured=run.measured(model, folder))


def open_folder(
    path: str | Path,
    exits: int | None = None,
    trust: bool = False,
    timed: bool = False,
) -> ModelFolder:
    """An inference folder, or what :func:`run_folder` gives of a run."""
    path = Path(path)
    if (path / RUN).is_file() and not (path / CONFIG_FILE).is_file():
        return run_folder(path, exits, trust, timed)
    folder = read_model_folder(path)
    return folder if exits is None else truncated_folder(folder, exits)


def _combination(
    trace: Trace, selector: LearnedSelector | None
) -> ZScores | None:
    """The same as training made it, from the same trace."""
    if selector is None:
        return None
    has_texts = trace.evidence.hyps is not None
    if has_texts and selector.language_model is not None:
        trace = add_plausibility(trace, selector.language_model)
    known = {*trace.evidence_names, *(["agreement"] * has_texts)}
    names = [name for name in COMBINED if name in known]
    return ZScores.fit(trace, names) if names else None
