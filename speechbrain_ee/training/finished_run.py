"""The output folder of a finished run: its checkpoints and its model.

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
from collections.abc import Mapping, Sequence
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import ruamel.yaml
import torch
import yaml
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.checkpoints import Checkpoint, average_checkpoints
from torch import Tensor

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.calibration.policy_file import write_policy
from speechbrain_ee.files import read_json, whole_file

logger = logging.getLogger(__name__)

FINGERPRINT = "fingerprint"  # key of CKPT.yaml
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
    """Where the checkpoints are, also of a folder that was moved.

    Arguments
    ---------
    folder : Path
        The output folder as it is now.
    save_folder, output_folder : str
        What the run's YAML says.

    Returns
    -------
    Path
    """
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


def write_default(save_folder: Path, name: str | None, reason: str) -> None:
    """Write which policy every export of a run follows by default."""
    text = json.dumps({"default_policy": name, "default_reason": reason})
    with whole_file(save_folder / DEFAULT_FILE) as stream:
        stream.write(f"{text}\n".encode())


def read_default(save_folder: Path) -> tuple[str | None, str] | None:
    """Name and reason; None of a run of which no default was written."""
    path = save_folder / DEFAULT_FILE
    if not path.exists():
        return None
    way_out = "remove it, and the default is chosen again"
    found = read_json(path, way_out)
    name, reason = found.get("default_policy"), found.get("default_reason")
    if not isinstance(name, str | None) or not isinstance(reason, str):
        raise InputError(
            f"{path}: a policy's name, or null, and a reason are expected; "
            f"{way_out}."
        )
    return name, reason


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
    """The average of the models, read without executing anything.

    Arguments
    ---------
    checkpoints : sequence of Checkpoint
        At least one.

    Returns
    -------
    dict of str to torch.Tensor
        Parameters and buffers by name.
    """
    return average_checkpoints(
        checkpoints,
        recoverable_name="model",
        parameter_loader=partial(torch.load, weights_only=True),
    )


def build_model(tree: Any) -> Any:
    """The model of a YAML alone: a checkpointer, say, would make its folder.

    It executes what the YAML says of the model, and may raise anything.

    Arguments
    ---------
    tree : mapping
        What ruamel.yaml read, tags included.

    Returns
    -------
    object
        What stands at ``modules: model``.
    """
    text = StringIO()
    ruamel.yaml.YAML().dump({"model": tree["modules"]["model"]}, text)
    return load_hyperpyyaml(text.getvalue())["model"]


def yaml_fingerprint(text: str) -> dict[str, str]:
    """What a YAML says that gives the weights of its model their meaning.

    Classes of the user's own need not be known: nothing is built.

    Arguments
    ---------
    text : str
        A YAML whose references are resolved, as ``hyperparams.yaml`` is.

    Returns
    -------
    dict of str to str
        By key, in JSON. What only training uses (dropout, augmentation) is
        left out, and so is the path of a class, which may move.

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
    """A model as plain data, by dotted key.

    Arguments
    ---------
    value : object
        Mappings, lists and plain values.
    key : str
        Where it stands.

    Returns
    -------
    dict of str to str
        Values in JSON; numbers that are equal are written alike.

    Example
    -------
    >>> flat_fingerprint({"class": "Net", "exits": [1, 2.0]}, "model")
    {'model.class': '"Net"', 'model.exits': '[1, 2]'}
    """
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
    """The configuration of a model's pre-trained encoder.

    Arguments
    ---------
    model : EarlyExitModel
        Built.

    Returns
    -------
    dict of str to str
        Empty for a model from scratch.
    """
    encoder = getattr(model, "encoder", None)
    config = getattr(encoder, "config", None)
    values = {
        name: getattr(config, name)
        for name in _OF_BACKBONE
        if hasattr(config, name)
    }
    if values:
        values["do_normalize"] = encoder.normalise
    found: dict[str, str] = {}
    for name, value in values.items():
        plain = list(value) if isinstance(value, tuple) else value
        found |= flat_fingerprint(plain, f"backbone.{name}")
    return found


def tokenizer_fingerprint(tokenizer: Any) -> dict[str, str]:
    """What tells a tokenizer from others: its pieces and their scores.

    The file also holds the path of what it was learnt from, which says
    nothing about it.

    Arguments
    ---------
    tokenizer : sentencepiece.SentencePieceProcessor
        Of a run.

    Returns
    -------
    dict of str to str
    """
    numbers = list(range(tokenizer.get_piece_size()))
    table = [tokenizer.id_to_piece(numbers), tokenizer.get_score(numbers)]
    digest = hashlib.sha256(json.dumps(table).encode()).hexdigest()
    return {"tokenizer": digest[:16]}


def differences(
    carried: Mapping[str, str], expected: Mapping[str, str]
) -> list[str]:
    """Keys in which two fingerprints differ.

    Arguments
    ---------
    carried, expected : mapping of str to str
        Of what was saved, and of what is there now.

    Returns
    -------
    list of str
        Those outside the model first. A key that only one of them has counts
        if it is one of the model, and both describe a model.
    """
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
    """Refuse weights that were trained to mean something else.

    Arguments
    ---------
    place : str or Path
        Where the weights are.
    carried : mapping of str to str, optional
        The fingerprint that lies with them.
    expected : mapping of str to str
        That of what they are about to be loaded into.
    way_out, what : str
        For the message: what to do, and what the weights are called.

    Returns
    -------
    bool
        False if they carry none, as those of earlier versions: then nothing
        is known.

    Raises
    ------
    InputError
        With the keys that differ.
    """
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
