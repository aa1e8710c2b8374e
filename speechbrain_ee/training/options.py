"""Reading a recipe's YAML, with errors that name the key.

Authors
 * The speechbrain-ee contributors 2026
"""

import difflib
import os
import re
from pathlib import Path
from typing import Any

import yaml
from hyperpyyaml import load_hyperpyyaml

from speechbrain_ee.errors import InputError

# Keys that train.py and the Brain read; all others must be referred to
# inside the YAML, or they have no effect.
READ_KEYS = frozenset(
    """
    seed output_folder save_folder report_folder system_name
    data_folder train_splits dev_splits test_splits
    train_csv valid_csv test_csv skip_prep
    output_neurons token_type sample_rate cache_audio
    dynamic_batching train_dataloader_opts valid_dataloader_opts
    test_dataloader_opts epoch_counter modules opt_class lr_annealing
    checkpointer train_logger wav_augment exit_weights exit_layers
    checkpoint_rule keep_checkpoints average_checkpoints
    blank_collapse_epochs
    """.split()
)
# Options that SpeechBrain's Brain takes from the YAML.
BRAIN_KEYS = frozenset(
    """
    precision eval_precision grad_accumulation_factor max_grad_norm
    nonfinite_patience skip_nonfinite_grads find_unused_parameters
    ckpt_interval_minutes ckpt_interval_steps optimizer_step_limit
    noprogressbar
    """.split()
)


def load_options(path: str, overrides: str = "") -> dict[str, Any]:
    """Load a recipe's YAML.

    Arguments
    ---------
    path : str
        The YAML.
    overrides : str
        Keys given on the command line, as YAML.

    Returns
    -------
    dict
        The hyper-parameters, objects built.

    Raises
    ------
    InputError
        If the file is missing or is no YAML, a key is unknown, or a value
        without default was not given.
    """
    text = _read(path)
    keys = re.findall(r"^([A-Za-z_]\w*):", text, flags=re.MULTILINE)
    _check_known(path, keys, text)
    for key in yaml.safe_load(overrides or "{}") or {}:
        if key not in keys:
            raise InputError(
                f"--{key}: {path} has no such option.{_suggest(key, keys)}"
            )
    try:
        return load_hyperpyyaml(text, overrides)
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, KeyError) as error:
        cause = _root(error)
        if isinstance(cause, InputError):
            raise cause from error
        if "!PLACEHOLDER" in str(error):
            raise InputError(
                f"{path}: an option without a default was not given "
                f"({_first_line(error)}); pass it on the command line, for "
                "example --data_folder=/path/to/LibriSpeech."
            ) from error
        raise InputError(
            f"{path}: cannot be loaded: {_first_line(error)}. Check the "
            "values that were given on the command line and in the YAML."
        ) from error


def make_output_folder(folder: str) -> None:
    """Make the output folder, or say that it cannot be written.

    Arguments
    ---------
    folder : str
        The experiment's ``output_folder``.

    Raises
    ------
    InputError
        If it cannot be made or written to.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        probe = Path(folder) / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"output_folder: {folder} cannot be written ({error.strerror}); "
            "pass another one with --output_folder=..."
        ) from error


def _read(path: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path}: this YAML cannot be read ({error.strerror}); the "
            "systems that come with the recipe lie in hparams/."
        ) from error
    return text


def _check_known(path: str, keys: list[str], text: str) -> None:
    referred = set(re.findall(r"<([A-Za-z_]\w*)", text))
    known = READ_KEYS | BRAIN_KEYS
    for key in keys:
        if key not in known | referred:
            raise InputError(
                f"{path}: the option `{key}` is unknown: nothing reads it."
                f"{_suggest(key, sorted(known | referred))}"
            )


def _suggest(key: str, valid: list[str]) -> str:
    close = difflib.get_close_matches(key, valid, n=3)
    if close:
        return f" Did you mean {' or '.join(close)}?"
    return f" Known options: {', '.join(sorted(valid))}."


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error) else repr(error)
