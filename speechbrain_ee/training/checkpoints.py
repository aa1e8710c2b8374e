"""Checkpoints that count only once they are complete, and what they mean.

A folder is a checkpoint if it holds ``CKPT.yaml``. SpeechBrain writes that
file first, so that a half-written folder is taken for the newest checkpoint
and cannot be loaded; here it gets its name last, when everything else has
reached the disk. It lists the files of the checkpoint and their sizes, so
that a folder which was half deleted or half copied is told from a whole one.

Weights mean something together with a tokenizer and an architecture, of which
some settings leave all shapes alone (``nhead``, ``n_fft``, ``norm_type``). Every
checkpoint and every model folder therefore carries a *fingerprint*: a flat
mapping from the keys of all such settings to their values, as JSON. What is
loaded is compared with it key by key.

Authors
 * The speechbrain-ee contributors 2026
"""

import ast
import hashlib
import json
import logging
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import ruamel.yaml
import torch
import yaml
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils import checkpoints
from speechbrain.utils.checkpoints import Checkpoint, average_checkpoints
from speechbrain.utils.distributed import ddp_barrier, if_main_process
from torch import Tensor

from speechbrain_ee.errors import InputError, one_line
from speechbrain_ee.exits.calibration.policy_file import (
    ExitPolicy,
    write_policy,
)
from speechbrain_ee.files import whole_file
from speechbrain_ee.schema import Record, plain, read_record

logger = logging.getLogger(__name__)

Rank = Callable[[Checkpoint], float]

FINGERPRINT = "fingerprint"  # key of CKPT.yaml
FILES = "files"  # key of CKPT.yaml: file name -> size in bytes
POLICY_FOLDER = "policies"
DEFAULT_FILE = "default_policy.json"  # what the report says is the default
UNCHECKED = (
    "%s: saved without a fingerprint, by an earlier version; whether its "
    "tokenizer and model are still those of the training cannot be checked."
)
_MEND = (
    "hyperparams.yaml or the tokenizer has changed since: start train.py once "
    "more with the values of the training"
)
# How torch.save says, in a RuntimeError, that a file cannot be written.
NOT_WRITTEN = re.compile("inline_container|StreamWriter|Parent directory")
# How torch says that a state is one of another model or optimiser.
OTHER_STATE = re.compile("state_dict|parameter group")
_WAY_OUT = (
    "train in a new output_folder, or go back to the values of the training"
)
_NOT_ITS_YAML = (
    "; if hyperparams.yaml, from which these are taken, is not that of the "
    "training, remove it"
)
BYTES_PER_MB = 10**6
# Keys of a YAML that say what outputs mean, beside its model.
_OF_OUTPUTS = ("token_type", "output_neurons", "sample_rate")
# Arguments of training alone, or that say where weights came from.
_OF_TRAINING = frozenset(
    """
    feature_augment layerdrop_prob source save_path pretrained
    freeze_convolutions freeze_backbone id
    """.split()
)
# Of the configuration of a pre-trained encoder, what its outputs depend on.
_OF_BACKBONE = """
    model_type num_attention_heads hidden_act layer_norm_eps
    do_stable_layer_norm feat_extract_norm feat_extract_activation
    conv_stride num_buckets max_bucket_distance
    num_conv_pos_embedding_groups
""".split()


def moved_save_folder(
    folder: Path, save_folder: str, output_folder: str
) -> Path:
    """Where the checkpoints are, also of a folder that was moved."""
    saved = Path(save_folder)
    try:
        return folder / saved.relative_to(output_folder)
    except ValueError:
        return saved


def write_policies(
    save_folder: Path, policies: Mapping[str, ExitPolicy]
) -> None:
    """Write what was calibrated; what an earlier evaluation left is removed."""
    (save_folder / DEFAULT_FILE).unlink(missing_ok=True)
    for path in (save_folder / POLICY_FOLDER).glob("*.yaml"):
        path.unlink()
    for name, policy in policies.items():
        write_policy(save_folder / POLICY_FOLDER / f"{name}.yaml", policy)


class DefaultPolicy(Record):
    """Which policy every export of a run follows, and why."""

    default_policy: str | None
    default_reason: str


def write_default(save_folder: Path, name: str | None, reason: str) -> None:
    """Write which policy every export of a run follows by default."""
    text = json.dumps(plain(DefaultPolicy(name, reason)))
    with whole_file(save_folder / DEFAULT_FILE) as stream:
        stream.write(f"{text}\n".encode())


def read_default(save_folder: Path) -> tuple[str | None, str] | None:
    """Name and reason; None of a run of which no default was written."""
    path = save_folder / DEFAULT_FILE
    if not path.exists():
        return None
    way_out = "remove it, and the default is chosen again"
    found = read_record(path, DefaultPolicy, way_out)
    return found.default_policy, found.default_reason


def check_checkpoints(
    save_folder: Path,
    checkpoints: Sequence[Checkpoint],
    fingerprint: Mapping[str, str],
) -> bool:
    """Refuse checkpoints of a run with another fingerprint.

    Returns whether all of them carry one, as those of earlier versions do not.
    """
    for checkpoint in checkpoints:
        carried = checkpoint.meta.get(FINGERPRINT)
        if not check_fingerprint(save_folder, carried, fingerprint, _MEND):
            logger.warning(UNCHECKED, save_folder)
            return False
    return True


def averaged_weights(checkpoints: Sequence[Checkpoint]) -> dict[str, Tensor]:
    """The average of the models, read without executing anything."""
    return average_checkpoints(
        checkpoints,
        recoverable_name="model",
        parameter_loader=partial(torch.load, weights_only=True),
    )


def build_model(tree: Any) -> Any:
    """The model of a YAML alone: a checkpointer, say, would make its folder.

    It executes what the YAML says of the model, and may raise anything.
    """
    text = StringIO()
    ruamel.yaml.YAML().dump({"model": tree["modules"]["model"]}, text)
    return load_hyperpyyaml(text.getvalue())["model"]


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Build something with random numbers of the CPU as if none were drawn."""
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])


def yaml_fingerprint(text: str) -> dict[str, str]:
    """What a YAML says that gives the weights of its model their meaning.

    Classes of the user's own need not be known: nothing is built.

    Example
    -------
    >>> yaml_fingerprint(
    ...     "token_type: bpe\\n"
    ...     "modules:\\n"
    ...     "    model: !new:my.Model {heads: 2.0, dropout: 0.1}\\n"
    ... )
    {'token_type': '"bpe"', 'model.class': '"Model"', 'model.heads': '2'}
    """
    root = _parts(yaml.compose(text, Loader=yaml.SafeLoader))
    nodes = {key: root[key] for key in _OF_OUTPUTS if key in root}
    modules = _parts(root.get("modules"))
    nodes |= {key: modules[key] for key in ("model",) if key in modules}
    found: dict[str, str] = {}
    for key, node in nodes.items():
        found |= flat_fingerprint(_tree(node, {}, key), key)
    return found


def flat_fingerprint(value: Any, key: str) -> dict[str, str]:
    """A model as plain data, by dotted key."""
    found: dict[str, str] = {}
    if isinstance(value, Mapping):
        for name, each in value.items():
            if name not in _OF_TRAINING and not str(name).endswith("dropout"):
                found |= flat_fingerprint(each, f"{key}.{name}")
        return found
    if isinstance(value, list) and any(
        isinstance(each, list | Mapping) for each in value
    ):
        for place, each in enumerate(value):
            found |= flat_fingerprint(each, f"{key}[{place}]")
        return found
    if isinstance(value, list):
        value = [_number(each) for each in value]
    return {key: json.dumps(_number(value), default=str)}


def backbone_fingerprint(model: Any) -> dict[str, str]:
    """The configuration of a model's pre-trained encoder."""
    encoder = getattr(model, "encoder", None)
    config = getattr(encoder, "config", None)
    values = {
        name: getattr(config, name)
        for name in _OF_BACKBONE
        if hasattr(config, name)
    }
    if values:
        values["do_normalize"] = encoder.normalise
    for name, value in values.items():
        values[name] = list(value) if isinstance(value, tuple) else value
    return flat_fingerprint(values, "backbone")


def tokenizer_fingerprint(tokenizer: Any) -> dict[str, str]:
    """What tells a tokenizer from others: its pieces and their scores; not
    its file, which holds the path of what it was learnt from.
    """
    scores = tokenizer.get_score(list(range(tokenizer.get_piece_size())))
    table = [pieces_in(tokenizer), scores]
    digest = hashlib.sha256(json.dumps(table).encode()).hexdigest()
    return {"tokenizer": digest[:16]}


def pieces_in(tokenizer: Any) -> list[str]:
    """What every token stands for."""
    return tokenizer.id_to_piece(list(range(tokenizer.get_piece_size())))


def differences(
    carried: Mapping[str, str], expected: Mapping[str, str]
) -> list[str]:
    """Keys in which two fingerprints differ."""
    both = {*carried} & {*expected}
    every = both
    if any(map(_of_model, carried)) and any(map(_of_model, expected)):
        every = both | {*filter(_of_model, {*carried, *expected})}
    found = [key for key in every if carried.get(key) != expected.get(key)]
    return sorted(found, key=lambda key: (_of_model(key), len(key), key))


def check_fingerprint(
    place: str | Path,
    carried: Any,
    expected: Mapping[str, str],
    way_out: str,
    what: str = "its checkpoints",
) -> bool:
    """Refuse weights that were trained to mean something else."""
    if not isinstance(carried, Mapping) or not carried:
        return False
    keys = differences(carried, expected)
    if not keys:
        return True
    shown = [
        f"{key} is {expected.get(key, 'not set')}, but was "
        f"{str(carried.get(key, 'not set'))[:100]} in training"
        for key in keys[:3]
    ]
    more = f"; {len(keys) - 3} more keys differ" if len(keys) > 3 else ""
    raise InputError(
        f"{place}: {what} do not fit this model: {'; '.join(shown)}{more}; "
        f"{way_out}."
    )


def _of_model(key: str) -> bool:
    return key.startswith("model.")


def _parts(node: Any) -> dict[str, yaml.Node]:
    """The nodes of a mapping, by key; none of anything else."""
    mapping = isinstance(node, yaml.MappingNode)
    return {k.value: v for k, v in node.value} if mapping else {}


def _number(value: Any) -> Any:
    """Equal numbers alike: a YAML says 4 or 4.0."""
    whole = isinstance(value, float) and value.is_integer()
    return int(value) if whole else value


def _tree(node: yaml.Node, seen: dict[int, str], key: str) -> Any:
    """Plain data of a node; of a class that is built, its name."""
    kind, _, dotted = node.tag.partition(":")
    builds = kind[:1] == "!" and dotted != ""
    tagged = {"class": dotted.rpartition(".")[2]} if builds else {}
    if isinstance(node, yaml.ScalarNode):
        return tagged if builds else _scalar(node)
    if id(node) in seen:
        return f"as {seen[id(node)]}"
    scalars = all(isinstance(each, yaml.ScalarNode) for each in node.value)
    if isinstance(node, yaml.SequenceNode) and scalars:
        return [_scalar(each) for each in node.value]
    seen[id(node)] = key
    if isinstance(node, yaml.SequenceNode):
        parts = enumerate(node.value)
        return [_tree(each, seen, f"{key}[{n}]") for n, each in parts]
    return tagged | {
        name.value: _tree(each, seen, f"{key}.{name.value}")
        for name, each in node.value
        if name.value not in _OF_TRAINING
    }


def _scalar(node: yaml.ScalarNode) -> Any:
    """A plain value; HyperPyYAML reads (1, 2) as a tuple."""
    try:
        if node.tag == "!tuple" or (not node.style and node.value[:1] == "("):
            return list(ast.literal_eval(node.value))
        return yaml.constructor.SafeConstructor().construct_object(node)
    except (yaml.YAMLError, ValueError, SyntaxError, TypeError):
        return node.value


class AtomicCheckpointer(checkpoints.Checkpointer):
    """SpeechBrain's checkpointer, safe against kills and full disks.

    Arguments
    ---------
    *args, **kwargs
        As for :class:`speechbrain.utils.checkpoints.Checkpointer`.

    Example
    -------
    >>> import torch
    >>> folder = getfixture("tmp_path")
    >>> saver = AtomicCheckpointer(folder, {"net": torch.nn.Linear(1, 1)})
    >>> saved = saver.save_checkpoint(meta={"WER": 12.5})
    >>> saver.find_checkpoint(min_key="WER").path == saved.path
    True
    >>> (saved.path / "net.ckpt").unlink()
    >>> saver.list_checkpoints()
    []
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._reported: set[Path] = set()
        self._fingerprint: dict[str, str] = {}
        self._assumed: dict[str, str] = {}

    def expect(
        self,
        fingerprint: Mapping[str, str],
        assumed: Mapping[str, str] | None = None,
    ) -> None:
        """Say what gives the weights of this run their meaning.

        From then on, checkpoints carry it, and those of another meaning are
        refused, whoever asks for them.
        """
        self._fingerprint |= fingerprint
        self._assumed |= assumed or {}
        self.list_checkpoints()

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> Checkpoint | None:
        """As SpeechBrain's; the checkpoint appears when it is complete."""
        try:
            saved = super().save_checkpoint(*args, **kwargs)
            ddp_barrier()  # every process has written its part
            if if_main_process():
                _complete(saved)
        except (OSError, RuntimeError) as error:
            disk = isinstance(error, OSError) or NOT_WRITTEN.search(str(error))
            if not disk:
                raise
            raise self._not_saved(error) from error
        return saved

    def list_checkpoints(self) -> list[Checkpoint]:
        """Those that are complete."""
        listed = []
        for checkpoint in super().list_checkpoints():
            wrong = _wrong_files(checkpoint)
            if not wrong:
                self._check_meaning(checkpoint)
                listed.append(checkpoint)
            elif checkpoint.path not in self._reported:
                self._reported.add(checkpoint.path)
                logger.warning(
                    "%s is no complete checkpoint and is not used: %s "
                    "missing or of another size. It may be deleted.",
                    checkpoint.path,
                    ", ".join(wrong),
                )
        return listed

    def delete_checkpoints(
        self,
        *,
        num_to_keep: int = 1,
        min_keys: Sequence[str] | None = None,
        max_keys: Sequence[str] | None = None,
        importance_keys: Sequence[Rank] = (checkpoints.ckpt_recency,),
        ckpt_predicate: Callable[[Checkpoint], bool] | None = None,
        verbosity: int = logging.INFO,
    ) -> None:
        """Delete all but the best by each of some orders, as SpeechBrain's.

        A checkpoint stops being one before its first file is deleted.
        """
        # SpeechBrain appends to its default list in every call.
        orders = [{"importance_key": key} for key in {*importance_keys}]
        orders += [{"min_key": key} for key in min_keys or ()]
        orders += [{"max_key": key} for key in max_keys or ()]
        ranked = [
            self.find_checkpoints(ckpt_predicate=ckpt_predicate, **order)
            for order in orders
        ]
        kept = {each.path for rank in ranked for each in rank[:num_to_keep]}
        paths = {each.path for rank in ranked for each in rank} - kept
        ddp_barrier()  # every process has looked
        for path in sorted(paths) if if_main_process() else ():
            final = path / checkpoints.METAFNAME
            os.replace(final, _unfinished(final))
            shutil.rmtree(path)
            logger.log(verbosity, "Deleted checkpoint in %s", path)
        ddp_barrier()

    def recover_if_possible(
        self, *args: Any, **kwargs: Any
    ) -> Checkpoint | None:
        """As SpeechBrain's; removes what a killed run has left half-written."""
        self._remove_unfinished()
        return super().recover_if_possible(*args, **kwargs)

    def load_checkpoint(self, checkpoint: Checkpoint) -> None:
        """As SpeechBrain's, with errors that name the file and the way out."""
        try:
            super().load_checkpoint(checkpoint)
        except InputError:
            raise
        # A damaged file can raise anything.
        except Exception as error:
            if OTHER_STATE.search(str(error)):
                raise
            raise InputError(
                f"{checkpoint.path}: this checkpoint cannot be read "
                f"({one_line(error)}); it is damaged, or was saved by other "
                "code. Delete this folder to go on from the checkpoint before "
                "it, or train in a new output_folder."
            ) from error

    def _check_meaning(self, checkpoint: Checkpoint) -> None:
        if not self._fingerprint:
            return
        carried, way_out = checkpoint.meta.get(FINGERPRINT), _WAY_OUT
        if not carried:
            carried, way_out = self._assumed, f"{_WAY_OUT}{_NOT_ITS_YAML}"
            if self.checkpoints_dir not in self._reported:
                logger.warning(UNCHECKED, self.checkpoints_dir)
                self._reported.add(self.checkpoints_dir)
        check_fingerprint(
            self.checkpoints_dir, carried, self._fingerprint, way_out
        )

    def _save_checkpoint_metafile(
        self,
        fpath: Path,
        meta_to_include: dict[str, Any] | None = None,
        end_of_epoch: bool = True,
    ) -> dict[str, Any]:
        # The newest checkpoint is the one with the latest time, and the clock
        # of the node that goes on with a run may be behind.
        times = [ckpt.meta["unixtime"] for ckpt in self.list_checkpoints()]
        now = max([time.time(), *(known + 0.001 for known in times)])
        meta = {"unixtime": now, **(meta_to_include or {})}
        if self._fingerprint:
            meta[FINGERPRINT] = dict(self._fingerprint)
        return super()._save_checkpoint_metafile(
            _unfinished(fpath), meta, end_of_epoch
        )

    def _not_saved(self, error: Exception) -> InputError:
        """What to say; makes room by removing the part that was written."""
        cause = getattr(error, "strerror", None) or "not all could be written"
        with suppress(OSError):
            self._remove_unfinished()
            free = shutil.disk_usage(self.checkpoints_dir).free
            cause = f"{cause}; {free // BYTES_PER_MB} MB are free there now"
        newest = self.find_checkpoint()
        start = "the beginning: there is none yet"
        if newest is not None:
            start = f"the last complete one, {newest.path.name}"
        return InputError(
            f"{self.checkpoints_dir}: a checkpoint could not be saved "
            f"({cause}). Make room or raise the quota, or lower "
            "keep_checkpoints, and start the same command again; it goes on "
            f"from {start}."
        )

    def _remove_unfinished(self) -> None:
        if not if_main_process():
            return
        for folder in self.checkpoints_dir.glob(f"{checkpoints.CKPT_PREFIX}+*"):
            if folder.is_dir() and _is_unfinished(folder):
                logger.info("%s was not finished: removed", folder)
                shutil.rmtree(folder, ignore_errors=True)


def best_checkpoints(save_folder: Path, average: int) -> list[Checkpoint]:
    """The checkpoints that evaluation averages."""
    # A checkpointer would make a folder that is not there.
    if not any(save_folder.glob(f"*/{checkpoints.METAFNAME}")):
        return []
    return AtomicCheckpointer(save_folder).find_checkpoints(
        min_key="WER", max_num_checkpoints=average
    )


def _is_unfinished(folder: Path) -> bool:
    """Whether it holds what a killed save or deletion leaves, and no more."""
    meta = _unfinished(folder / checkpoints.METAFNAME)
    return all(
        path == meta or path.suffix == checkpoints.PARAMFILE_EXT
        for path in folder.iterdir()
    )


def _complete(saved: Checkpoint) -> None:
    """Declare a checkpoint complete, once it has reached the disk."""
    files = [path for path in saved.paramfiles.values() if path.exists()]
    sizes = {path.name: path.stat().st_size for path in files}
    final = saved.path / checkpoints.METAFNAME
    temporary = _unfinished(final)
    text = yaml.safe_dump({**saved.meta, FILES: sizes})
    temporary.write_text(f"# yamllint disable\n{text}", "utf-8")
    for path in (*files, temporary):
        _sync(path)
    os.replace(temporary, final)
    with suppress(OSError):  # not every file system can
        _sync(saved.path)


def _sync(path: Path) -> None:
    """Have the disk, not only its cache, hold a file; or hear why not."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _wrong_files(checkpoint: Checkpoint) -> list[str]:
    """Files of a checkpoint that are not what they were when it was saved."""
    wrong = []
    for name, size in checkpoint.meta.get(FILES, {}).items():
        try:
            right = (checkpoint.path / name).stat().st_size == size
        except OSError:
            right = False
        if not right:
            wrong.append(name)
    return wrong


def _unfinished(path: Path) -> Path:
    return path.with_name(f"{path.name}.unfinished")
