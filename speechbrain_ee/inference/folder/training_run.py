"""The files of a finished run, read for an inference folder.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import ruamel.yaml
import torch
from sentencepiece import SentencePieceProcessor
from speechbrain.utils.checkpoints import METAFNAME, Checkpoint
from torch import Tensor

from speechbrain_ee.data.preparation import dev_set_manifest
from speechbrain_ee.errors import InputError, one_line
from speechbrain_ee.evaluation.learn import SELECTOR_FILE
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.decoding.methods import (
    BY_ATTENTION,
    DECODINGS,
    GREEDY,
)
from speechbrain_ee.exits.decoding.search_options import SearchOptions
from speechbrain_ee.exits.selector.learned import LearnedSelector
from speechbrain_ee.exits.selector.selector_file import read_selector
from speechbrain_ee.exits.trace import Trace
from speechbrain_ee.exits.trace_file import read_trace
from speechbrain_ee.files import compose_yaml, read_bytes
from speechbrain_ee.inference.folder.architecture import Architecture
from speechbrain_ee.inference.folder.backbone import described
from speechbrain_ee.inference.folder.config import SEARCH_KEYS
from speechbrain_ee.inference.folder.hyperparams import Hyperparams
from speechbrain_ee.inference.folder.measured import Measured, measure_choices
from speechbrain_ee.inference.folder.model_folder import (
    POLICY_SELECTOR,
    ModelFolder,
)
from speechbrain_ee.inference.folder.parts import read_policies
from speechbrain_ee.inference.folder.shipped import up_to_layer
from speechbrain_ee.inference.folder.weights import (
    LEFT_OUT,
    build_bounded,
    check_finite,
    global_norms,
)
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
    yaml_fingerprint,
)

logger = logging.getLogger(__name__)

_SEARCH = f"{SearchOptions.__module__}.{SearchOptions.__name__}"
_REGIME = "speechbrain_ee.training.regimes.Regime"
_WAY_OUT = "give the output_folder of a finished run of this recipe"


class TrainingRun:
    """What the output folder of a run holds.

    Arguments
    ---------
    folder : Path
        The folder; it may have been moved since training.

    Raises
    ------
    InputError
        If it has no readable ``hyperparams.yaml``.
    """

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

        Arguments
        ---------
        trust : bool
            Execute the YAML where its model is none that a folder can hold,
            and fetch what it names.

        Returns
        -------
        model : EarlyExitModel
            Its trained exits.
        architecture : Architecture, optional
            The same as plain data; None if the YAML was executed.
        """
        found = self._checkpoints()
        weights = _averaged(found, self.save_folder)
        header = {
            name: (tuple(tensor.shape), str(tensor.dtype))
            for name, tensor in weights.items()
        }
        try:
            architecture, backbone = self.hparams.architecture(fetch=trust)
            model = build_bounded(
                partial(architecture.build, backbone),
                described(architecture, backbone),
                header,
            )
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
        _load(model, weights, found[0].path, self.save_folder)
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
        options = (
            self.hparams.arguments("search", _SEARCH)
            if (self.decoding in BY_ATTENTION)
            else {}
        )
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


def _averaged(found: Sequence[Checkpoint], place: Path) -> dict[str, Tensor]:
    """The average of the best checkpoints, as evaluation makes it."""
    try:
        weights = {
            name: tensor
            for name, tensor in averaged_weights(found).items()
            if not name.startswith(LEFT_OUT)
        }
        check_finite(place, weights)
        return weights
    except InputError:
        raise
    # A damaged or hostile file can raise anything.
    except Exception as error:
        _not_loaded(place, error)


def _load(
    model: EarlyExitModel,
    weights: Mapping[str, Tensor],
    best: Path,
    place: Path,
) -> None:
    """Load weights and the statistics of the best checkpoint."""
    try:
        model.load_state_dict(weights, strict=True)
        _load_statistics(model, best / "normalizer.ckpt")
    except Exception as error:
        _not_loaded(place, error)


def _not_loaded(place: Path, error: Exception) -> NoReturn:
    logger.debug("%s", place, exc_info=True)
    raise InputError(
        f"{place}: its checkpoints cannot be loaded into the model of "
        f"hyperparams.yaml ({one_line(error)}); {_WAY_OUT}."
    ) from error


def _load_statistics(model: EarlyExitModel, path: Path) -> None:
    """SpeechBrain keeps the means of features beside the weights."""
    norms = global_norms(model).values()
    if norms:
        statistics = torch.load(path, weights_only=True, map_location="cpu")
        for norm in norms:
            norm._load_statistics_dict(statistics)
