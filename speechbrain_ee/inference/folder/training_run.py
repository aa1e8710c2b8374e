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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ruamel.yaml
import torch
from sentencepiece import SentencePieceProcessor
from speechbrain.utils.checkpoints import METAFNAME, Checkpoint
from tqdm import tqdm

from speechbrain_ee.data.preparation import dev_set_manifest
from speechbrain_ee.data.words import decode, pieces_of
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
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.criteria.combined import ZScores
from speechbrain_ee.exits.criteria.text import add_plausibility
from speechbrain_ee.exits.decoding.methods import (
    BY_ATTENTION,
    DECODINGS,
    GREEDY,
)
from speechbrain_ee.exits.decoding.search_options import SearchOptions
from speechbrain_ee.exits.selector.learned import LearnedSelector
from speechbrain_ee.exits.selector.selection import COMBINED
from speechbrain_ee.exits.selector.selector_file import read_selector
from speechbrain_ee.exits.trace import Trace, UtteranceRecord
from speechbrain_ee.exits.trace_file import read_trace
from speechbrain_ee.files import compose_yaml, read_bytes
from speechbrain_ee.inference.folder.architecture import (
    Architecture,
    Hyperparams,
)
from speechbrain_ee.inference.folder.card import default_words, model_card
from speechbrain_ee.inference.folder.model_folder import (
    OF_SELECTOR,
    POLICY_SELECTOR,
    SEARCH_KEYS,
    Measured,
    ModelFolder,
    check_outputs,
    check_sample_rate,
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
from speechbrain_ee.inference.policies import LAST, Policies
from speechbrain_ee.inference.runner import LivePolicy, LiveRunner
from speechbrain_ee.inference.spoken import read_spoken
from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.training.checkpoints import (
    DEFAULT_FILE,
    POLICY_FOLDER,
    averaged_weights,
    backbone_fingerprint,
    best_checkpoints,
    build_model,
    check_checkpoints,
    moved_save_folder,
    read_default,
    tokenizer_fingerprint,
    write_default,
    yaml_fingerprint,
)

logger = logging.getLogger(__name__)

FOLDER_NAME = "model"
TIMED = 32  # utterances on which policies are timed
_SEARCH = f"{SearchOptions.__module__}.{SearchOptions.__name__}"
_REGIME = "speechbrain_ee.training.regimes.Regime"
_WAY_OUT = "give the output_folder of a finished run of this recipe"


class TrainingRun:
    """What the output folder of a run holds; it may have been moved since."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.hparams = Hyperparams(folder / "hyperparams.yaml")
        self.value = self.hparams.value
        self.save_folder = moved_save_folder(
            folder,
            self.value("save_folder", kind=str),
            self.value("output_folder", kind=str),
        )
        decodings = self.value("decodings", [GREEDY], list) or [GREEDY]
        self.decoding = str(decodings[0])
        self.verified = False  # by a fingerprint of its checkpoints

    def model(self, trust: bool) -> tuple[EarlyExitModel, Architecture | None]:
        """The model with the weights that evaluation uses.

        Trusted, a YAML whose model no folder can hold is executed, and what
        it names is fetched; it then is not known as plain data.
        """
        found = self._checkpoints()
        with _loading(self.save_folder):
            weights = {
                name: tensor
                for name, tensor in averaged_weights(found).items()
                if not name.startswith(LEFT_OUT)
            }
            check_finite(self.save_folder, weights)
        header = {
            name: (tuple(tensor.shape), str(tensor.dtype))
            for name, tensor in weights.items()
        }
        try:
            architecture, backbone = self.hparams.architecture(fetch=trust)
            model = build_bounded(architecture, backbone, header)
        except InputError:
            if not trust:
                raise
            model, architecture = _executed(self.hparams.path), None
        text = self.hparams.path.read_text(encoding="utf-8")
        self.verified = check_checkpoints(
            self.save_folder,
            found,
            yaml_fingerprint(text)
            | backbone_fingerprint(model)
            | tokenizer_fingerprint(self.tokenizer()),
        )
        with _loading(self.save_folder):
            model.load_state_dict(weights, strict=True)
            for norm in global_norms(model).values():
                # SpeechBrain keeps the means of features beside the weights.
                path = found[0].path / "normalizer.ckpt"
                norm._load_statistics_dict(
                    torch.load(path, weights_only=True, map_location="cpu")
                )
        trained = self.hparams.arguments("regime", _REGIME).get("active_exits")
        if trained is not None:  # the exits above it are as they began
            model = model.truncated(trained)
            architecture = architecture and architecture.truncated(trained)
        return model.eval(), architecture

    def _checkpoints(self) -> list[Checkpoint]:
        """Those that are averaged, of a whole epoch; the best first."""
        for path in self.save_folder.glob(f"*/{METAFNAME}"):
            compose_yaml(path, _WAY_OUT)  # SpeechBrain's reader has no bounds
        try:
            found = best_checkpoints(
                self.save_folder, self.value("average_checkpoints", kind=int)
            )
        # Numbers in them may be texts, or whatever else.
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise InputError(
                f"{self.save_folder}: its checkpoints cannot be compared "
                f"({one_line(error)}); {_WAY_OUT}."
            ) from error
        if not found:
            raise InputError(
                f"{self.save_folder}: holds no checkpoint of a whole epoch; "
                f"{_WAY_OUT}."
            )
        return found

    def tokenizer(self) -> SentencePieceProcessor:
        """SentencePiece's, as training made it."""
        size = self.value("output_neurons", kind=int)
        name = f"{size}_{self.value('token_type', kind=str)}.model"
        path = self.save_folder / Path(name).name
        try:
            content = read_bytes(path, _WAY_OUT)
            return SentencePieceProcessor(model_proto=content or b"\0")
        except (InputError, RuntimeError) as error:
            raise InputError(
                f"{path}: the tokenizer cannot be read ({one_line(error)}); "
                f"{_WAY_OUT}."
            ) from error

    def search(self) -> SearchOptions:
        """How hypotheses are searched for; its numbers."""
        options = {}
        if self.decoding in BY_ATTENTION:
            options = self.hparams.arguments("search", _SEARCH)
        if options.get("scorers"):
            raise InputError(
                f"{self.hparams.path}, key search.scorers: language models "
                "are not kept in an inference folder; evaluate without them "
                "first (the best checkpoints stay), then export."
            )
        return SearchOptions(
            **{key: options[key] for key in SEARCH_KEYS if key in options}
        )

    def trace(self, name: str, model: EarlyExitModel) -> Trace | None:
        """The trace of a set; None if there is none for this model."""
        path = self.folder / "traces" / f"{name}.jsonl.gz"
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
        keys = "valid_csv dev_splits data_folder output_folder skip_prep"
        named = Path(
            dev_set_manifest({key: self.value(key) for key in keys.split()})
        )
        moved = self.folder / named.name
        return moved if moved.exists() else named

    def development_trace(self, model: EarlyExitModel) -> Trace | None:
        """What policies are calibrated on."""
        trace = self.trace(self.development_manifest().stem, model)
        if trace is None:
            logger.warning(
                "%s: no trace of the development set, so no policy is "
                "shipped; the model always goes to its last exit.",
                self.folder,
            )
        return trace

    def selector(self, trace: Trace | None) -> LearnedSelector | None:
        """The learned selector, if there is one for these exits."""
        path = self.save_folder / SELECTOR_FILE
        if trace is None or not path.exists():
            return None
        selector = read_selector(path)
        same = selector.exit_layers == trace.header.exit_layers
        return selector if same else None

    def policies(
        self, model: EarlyExitModel, selector: LearnedSelector | None
    ) -> dict[str, ExitPolicy] | None:
        """What evaluation calibrated; None of a run of an earlier version."""
        if not (self.save_folder / POLICY_FOLDER).is_dir():
            return None
        name, _ = read_default(self.save_folder) or (None, "")
        place = self.save_folder / DEFAULT_FILE
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
        for name in self.test_sets():
            trace = self.trace(name, whole)
            if trace is not None and folder.exit_layers != whole.exit_layers:
                trace = up_to_layer(trace, folder.exit_layers[-1])
            if trace is not None:
                rows += measure_choices(
                    trace, folder.policies, folder.exit_layers
                )
        return tuple(rows)

    def test_sets(self) -> list[str]:
        """Names of the sets that were tested."""
        files = (self.folder / "traces").glob("*.jsonl.gz")
        names = [file.name.removesuffix(".jsonl.gz") for file in files]
        return sorted(
            name
            for name in names
            if name != self.development_manifest().stem
            and name.rpartition(".")[2] not in DECODINGS
        )

    def facts(self) -> dict[str, str]:
        """What the card says of data and training."""
        splits = {
            "Training data": self.value("train_splits", None),
            "Development data": self.value("dev_splits", None),
        }
        facts = {
            key: ", ".join(map(str, value))
            if isinstance(value, list)
            else str(value)
            for key, value in splits.items()
            if value
        }
        size, kind = self.value("output_neurons"), self.value("token_type")
        facts["Tokens"] = f"{size}, {kind}"
        if self.value("error_unit", "word") != "word":
            facts["WER"] = "is the character error rate (error_unit)"
        facts["Checkpoints averaged"] = str(self.value("average_checkpoints"))
        return facts


def _executed(path: Path) -> EarlyExitModel:
    """The model of a YAML that is trusted."""
    logger.warning(
        "%s: executing what it says of the model; trust it only if you trust "
        "whoever wrote it.",
        path,
    )
    try:
        tree = ruamel.yaml.YAML().load(path.read_text(encoding="utf-8"))
        return build_model(tree)
    # A YAML builds objects, so a wrong value can raise anything.
    except Exception as error:
        raise InputError(
            f"{path}: its model cannot be built ({one_line(error)}); {_WAY_OUT}."
        ) from error


@contextmanager
def _loading(place: Path) -> Iterator[None]:
    """Name the checkpoints that cannot be loaded."""
    try:
        yield
    except InputError:
        raise
    # A damaged or hostile file can raise anything.
    except Exception as error:
        logger.debug("%s", place, exc_info=True)
        raise InputError(
            f"{place}: its checkpoints cannot be loaded into the model of "
            f"hyperparams.yaml ({one_line(error)}); {_WAY_OUT}."
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
        points = []
        for place, layer in enumerate(trace.header.exit_layers):
            exit = list(exit_layers).index(layer) + 1
            point = measure(part, np.full(len(part), place))
            points.append((f"exit {exit}", point))
        for policy_name, policy in policies.items():
            found = get_criterion(policy.criterion)
            given = {*part.evidence_names, "transcripts"}
            fits = policy.exit_layers == trace.header.exit_layers
            if not fits or not set(found.needs) <= given:
                continue
            choice_N, cost_NE = choice_of(part, policy)
            point = measure(part, choice_N, None, cost_NE)
            points.append((policy_name, point))
        rows += [
            Measured(
                name,
                choice,
                round(point.avg_layer, 4),
                round(point.wer, 4),
                None if point.avg_macs is None else round(point.avg_macs),
                len(part),
            )
            for choice, point in points
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
    clusters = trace.clusters
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
                speaker=record.speaker and str(clusters.label_N[row] + 1),
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
    write_default(Path(hparams["save_folder"]), default, reason)
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

    The model is truncated at the exit ``exits``. Trusted, a model of classes
    of the user's own is built by executing what the YAML says of it. With
    ``timed`` the default policy is chosen by the clock, unless the run has
    one: that which its report names.
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
