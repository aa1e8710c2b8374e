"""Reading a recipe's YAML, with errors that name the key.

Authors
 * The speechbrain-ee contributors 2026
"""

import difflib
import inspect
import io
import json
import logging
import os
import pydoc
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import msgspec
import torch
import yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references
from speechbrain.utils.distributed import (
    get_local_rank,
    get_rank,
    if_main_process,
    infer_device,
)
from speechbrain.utils.run_opts import RunOptions
from speechbrain.utils.seed import seed_everything

from speechbrain_ee.errors import InputError, one_line
from speechbrain_ee.exits.calibration.budget import Budget
from speechbrain_ee.exits.criteria.registry import load_criteria
from speechbrain_ee.exits.scoring import check_error_unit
from speechbrain_ee.training.checkpoints import (
    AtomicCheckpointer,
    backbone_fingerprint,
    yaml_fingerprint,
)

logger = logging.getLogger(__name__)

# Keys that train.py and the Brain read, so that no YAML can go without them;
# all others must be referred to inside the YAML, or read by code of the
# user's own, or they have no effect.
READ_KEYS = frozenset(
    """
    seed output_folder save_folder report_folder system_name
    data_folder train_splits dev_splits test_splits
    train_csv valid_csv test_csv skip_prep
    output_neurons token_type sample_rate cache_audio
    dynamic_batching train_dataloader_opts valid_dataloader_opts
    test_dataloader_opts epoch_counter modules opt_class lr_annealing
    brain_class checkpointer train_logger wav_augment exit_weights
    checkpoint_rule keep_checkpoints average_checkpoints
    blank_collapse_epochs exit_budget
    """.split()
)
# Keys that some systems read and others do without.
SYSTEM_KEYS = frozenset(
    """
    ctc_weight label_smoothing attention_exit_weights bos_index eos_index
    decodings decoded_exits search regime backbone_opt_class
    lr_annealing_backbone distillation teacher
    """.split()
)
# Keys that any YAML may leave out: the command line knows them all the same.
OPTIONAL_KEYS = {
    "overthinking": False,
    "in_domain": None,
    "criteria": None,
    "losses": None,  # those of the Brain
    "error_unit": "word",  # character: for languages without spaces
    "corpus": "librispeech",
    "train_shards": {},  # as null it could not be given as a mapping
}
# Options whose value is a path, which is taken as it is written.
PATH_KEY = re.compile(
    r"\w+_(folder|csv|log|file|path)|source|criteria|train_shards"
)
# Options that SpeechBrain's Brain takes from the YAML.
BRAIN_KEYS = frozenset(field.name for field in fields(RunOptions))

# Run options that are whole numbers, and the least that makes sense.
_LEAST = {
    "grad_accumulation_factor": 1,
    "debug_batches": 1,
    "nonfinite_patience": 0,
    "optimizer_step_limit": 1,
}
_PRECISIONS = ("fp32", "fp16", "bf16")
_BACKENDS = ("nccl", "gloo", "mpi")
_COMPILERS = ("g++", "clang++", "cl")
_COMPILE_MODES = ("default", "reduce-overhead", "max-autotune")
LOCK_FILE = ".lock"
_PATIENCE_S = 5.0  # for a lock
_CLAIMED: dict[str, BinaryIO] = {}  # open as long as this process lives


def must_be(key: str, value: Any, kind: Any, allowed: str) -> None:
    """Refuse a value that does not fit a type, with what is allowed."""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        shown = list(value) if isinstance(value, tuple) else value
        raise InputError(f"{key}: {shown!r} must be {allowed}.") from None


def must_be_one_of(key: str, value: Any, allowed: Sequence[str]) -> None:
    """Refuse a value that is not among some words."""
    if value not in allowed:
        raise InputError(f"{key}: {value!r} is none of {', '.join(allowed)}.")


def load_options(path: str, overrides: str = "") -> dict[str, Any]:
    """Load a recipe's YAML, with its ``seed`` set before anything is built."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(
            f"{path}: this YAML cannot be read ({cause}); the "
            "systems that come with the recipe lie in hparams/."
        ) from error
    keys = _top_level_keys(text)
    left_out = {k: v for k, v in OPTIONAL_KEYS.items() if k not in keys}
    if left_out:
        keys, text = keys + [*left_out], f"{text}\n{yaml.safe_dump(left_out)}"
    _check_known(path, keys, text)
    given = _parse_overrides(overrides or "")
    for key in given:
        if key not in keys:
            raise InputError(
                f"--{key}: {path} has no such option.{_suggest(key, keys)}"
            )
        if PATH_KEY.fullmatch(key) and "  " in str(given[key]):
            raise InputError(
                f"--{key}: {given[key]!r} holds two spaces in a row, one of "
                "which HyperPyYAML may lose; give a link of another name."
            )
    _set_seed(path, text, given)
    try:
        options = load_hyperpyyaml(text, overrides)
        if options["train_shards"]:
            options["train_splits"] = []  # they take the place of these
        check_error_unit(options["error_unit"])
        own = options["criteria"]  # files or modules that register them
        for name in [own] if isinstance(own, str) else own or ():
            load_criteria(name)
        # before anything in the output folder is changed
        if isinstance(options["checkpointer"], AtomicCheckpointer):
            resolved = resolve_references(text, overrides).read()
            fingerprint = yaml_fingerprint(resolved)
            fingerprint |= backbone_fingerprint(options["modules"]["model"])
            earlier = _earlier_fingerprint(Path(options["output_folder"]))
            known = {k: earlier[k] for k in earlier if k in fingerprint}
            options["checkpointer"].expect(fingerprint, fingerprint | known)
        return options
    except InputError:
        raise
    except OSError as error:  # the checkpointer makes its folder
        raise _not_writable(error.filename, error) from error
    # A YAML builds objects, so a wrong value can raise anything.
    except Exception as error:
        logger.debug("%s cannot be loaded", path, exc_info=True)
        raise _explained(path, error) from error


def literal(arguments: Sequence[str]) -> list[str]:
    """A command line whose values SpeechBrain leaves as they are.

    It reads values as YAML and every ``=`` in them as a space. Here paths are
    quoted, as is all that holds ``=``.

    Example
    -------
    >>> literal(["demo.yaml", "--output_folder=a=b #1", "--lr", "0.1"])
    ['demo.yaml', '--output_folder="a\\\\x3db #1"', '--lr', '0.1']
    """
    own = {field.name for field in fields(RunOptions)}
    words, key = [], ""
    for word in arguments:
        if word.startswith("--"):
            key, is_given, value = word[2:].partition("=")
            if key not in own and is_given:
                word, key = f"--{key}={_quoted(key, value)}", ""
        elif key and key not in own:
            word, key = _quoted(key, word), ""
        words.append(word)
    return words


def path_of(key: str, value: str) -> str | None:
    """The path that is the value of an option, whatever YAML makes of it.

    Example
    -------
    >>> path_of("data_folder", "/my #1 corpus"), path_of("lr", "0.1")
    ('/my #1 corpus', None)
    """
    if not PATH_KEY.fullmatch(key) or value in ("", "~", "null"):
        return None
    if value[0] in "[{\"'!":
        with suppress(yaml.YAMLError):
            yaml.compose(value)
            return None
    return os.path.expanduser(value)


def _quoted(key: str, value: str) -> str:
    """The value of an option as YAML without ``=``."""
    given = path_of(key, value)
    if given is None and "=" not in value:
        return value
    try:
        given = given or yaml.safe_load(value)
    except yaml.YAMLError:
        return value  # what is wrong is said where options are loaded
    text = json.dumps(given, ensure_ascii=False, default=str)
    return text.replace("=", "\\x3d")


def make_output_folder(folder: str) -> None:
    """Make the output folder for this run alone, or say why it cannot be."""
    try:
        os.makedirs(folder, exist_ok=True)
        # A name of its own: every process of a distributed run comes by here.
        tempfile.TemporaryFile(dir=folder).close()
        if if_main_process():
            claim_folder(folder)
    except OSError as error:
        raise _not_writable(folder, error) from error


def _not_writable(folder: str, error: OSError) -> InputError:
    return InputError(
        f"output_folder: {folder} cannot be written ({error.strerror}); "
        "pass another one with --output_folder=..."
    )


def claim_folder(folder: str) -> None:
    """Keep other runs out of a folder until this process ends.

    The kernel gives the lock back, however the process ends. Workers that it
    forks do not hold it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return
    place = os.path.realpath(folder)
    if place in _CLAIMED:
        return
    stream = open(os.path.join(place, LOCK_FILE), "ab")
    # One that was killed a moment ago may still be on its way out.
    latest_s = time.monotonic() + _PATIENCE_S
    while place not in _CLAIMED:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            if time.monotonic() < latest_s:
                time.sleep(0.1)
                continue
            stream.close()
            raise InputError(
                f"output_folder: another run is at work in {folder}; two would "
                "overwrite each other's files. Wait until it ends, or pass "
                "another output_folder."
            ) from None
        except OSError as error:
            logger.warning(
                "%s: no lock can be had on its file system (%s): start no "
                "second run in it.",
                folder,
                one_line(error),
            )
        _CLAIMED[place] = stream


@contextmanager
def refused_in_one_sentence() -> Iterator[None]:
    """What SpeechBrain's parser of the command line refuses, as InputError."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            yield
    except SystemExit as error:
        if not error.code:  # --help
            raise
        problem = said.getvalue().strip().rpartition("error: ")[2]
        raise InputError(
            f"{problem.removeprefix('argument ')}; write train.py "
            "hparams/<system>.yaml --option=value, and see train.py --help."
        ) from None


def check_run_options(
    run_opts: RunOptions, hparams: Mapping[str, Any]
) -> RunOptions:
    """Refuse what SpeechBrain would refuse, before any work is done."""
    values = {
        key: value
        if key in run_opts.overridden_args or key not in hparams
        else hparams[key]
        for key, value in vars(run_opts).items()
    }
    limit = values["optimizer_step_limit"]
    if isinstance(limit, str) and limit.isdecimal():
        # SpeechBrain gives no type to an option that is None by default
        values["optimizer_step_limit"] = int(limit)
        run_opts = replace(run_opts, optimizer_step_limit=int(limit))
    check_numbers(values)
    _check_devices(values)
    _check_compilation(values, hparams.get("modules", {}))
    return run_opts


def check_numbers(values: Mapping[str, Any]) -> None:
    """Refuse numbers with which SpeechBrain cannot train."""
    for key, least in _LEAST.items():
        kind = Annotated[int, msgspec.Meta(ge=least)] | None
        must_be(key, values[key], kind, f"a whole number from {least}")
    must_be(
        "max_grad_norm",
        values["max_grad_norm"],
        Annotated[float, msgspec.Meta(gt=0)],
        "positive: clipping to a negative norm reverses the gradient. Leave "
        "clipping out with a large number, for example 1.0e+9",
    )
    minutes, steps = (
        values["ckpt_interval_minutes"],
        values["ckpt_interval_steps"],
    )
    if minutes > 0 and steps > 0:
        raise InputError(
            f"ckpt_interval_steps: {steps}, but checkpoints are also saved "
            f"every {minutes} minutes, and SpeechBrain does one of both; pass "
            "--ckpt_interval_minutes=0 beside it, or leave it out."
        )


def _check_devices(values: Mapping[str, Any]) -> None:
    """Device, precision, and how several of them work together."""
    if values["data_parallel_backend"]:
        raise InputError(
            "--data_parallel_backend: the outputs of a multi-exit model "
            "cannot be put together by it; start torchrun --nproc_per_node=N "
            "train.py ... instead."
        )
    backend, rank = values["distributed_backend"], get_local_rank()
    must_be_one_of("--distributed_backend", backend, _BACKENDS)
    if rank is not None and get_rank() is not None:
        gpus = torch.cuda.device_count()
        if backend != "gloo" and rank >= gpus:
            raise InputError(
                f"--distributed_backend: {backend} needs a GPU for every "
                f"process, and this machine has {gpus}; pass "
                "--distributed_backend=gloo to train on CPUs, or start "
                "fewer processes."
            )
        if not getattr(torch.distributed, f"is_{backend}_available")():
            raise InputError(
                f"--distributed_backend: this PyTorch was built without "
                f"{backend}; pass one of {', '.join(_BACKENDS)} that it has."
            )
    device = infer_device() if values["device"] is None else values["device"]
    try:
        torch.empty(0, device=device)
    # torch answers with errors of many kinds
    except Exception as error:
        raise InputError(
            f"--device: {device or repr(device)} cannot be used "
            f"({one_line(error.__cause__ or error, 120)}); give cpu, or cuda "
            "on a machine that has a GPU."
        ) from error
    precisions = {key: values[key] for key in ("precision", "eval_precision")}
    if values["auto_mix_prec"]:
        precisions["auto_mix_prec"] = "fp16"
    if values["bfloat16_mix_prec"]:
        precisions["bfloat16_mix_prec"] = "bf16"
    for key, name in precisions.items():
        must_be_one_of(key, name, _PRECISIONS)
        if name == "fp16" and str(device).startswith("cpu"):
            raise InputError(
                f"{key}: fp16 cannot be computed on a CPU; use bf16 or fp32, "
                "or a GPU (--device=cuda)."
            )


def _check_compilation(
    values: Mapping[str, Any], modules: Mapping[str, Any]
) -> None:
    if values["jit"]:
        raise InputError(
            "--jit: TorchScript cannot compile a model that is walked exit "
            "by exit; leave it out, or use --compile."
        )
    if not values["compile"]:
        return
    compilers = (os.environ.get("CXX"), *_COMPILERS)
    if not any(shutil.which(name) for name in compilers if name):
        raise InputError(
            "--compile: PyTorch compiles with a C++ compiler, and none of "
            f"{', '.join(_COMPILERS)} is installed; install one, or leave "
            "--compile out."
        )
    for name in values["compile_module_keys"] or ():
        if name not in modules:
            raise InputError(
                f"--compile_module_keys: there is no module {name!r}; "
                f"modules holds {', '.join(modules)}."
            )
    must_be_one_of("--compile_mode", values["compile_mode"], _COMPILE_MODES)


def check_exit_budget(budget: str | None, exit_layers: Sequence[int]) -> None:
    """Refuse a budget that no policy of this model could be made for."""
    if budget is None:
        return
    try:
        parsed = Budget.parse(budget)
    except InputError as error:
        raise InputError(
            f"exit_budget: {str(error).rstrip('.')}, or null (no policy)."
        ) from None
    first = exit_layers[0]
    chosen = parsed.kind == "layers" and len(exit_layers) > 1
    if chosen and parsed.value < first:
        raise InputError(
            f"exit_budget: {parsed} is less than the first exit takes, which "
            f"is after layer {first}; the smallest possible value is "
            f"layers={first}."
        )


def _earlier_fingerprint(folder: Path) -> dict[str, str]:
    """Of the last start in an output folder; empty if there was none."""
    try:
        return yaml_fingerprint(
            (folder / "hyperparams.yaml").read_text(encoding="utf-8")
        )
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}


def _top_level_keys(text: str) -> list[str]:
    return re.findall(r"^([A-Za-z_]\w*):", text, flags=re.MULTILINE)


def _parse_overrides(overrides: str) -> dict[str, Any]:
    """The options of the command line, which SpeechBrain gives as YAML."""
    names = _top_level_keys(overrides)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(
            f"--{twice[0]}: given more than once on the command line; "
            "leave one of them out."
        )
    try:
        given = yaml.safe_load(overrides)
    except yaml.YAMLError as error:
        raise InputError(
            f"command line: {one_line(error, 300)}; a value must be YAML, for "
            "example --exit_layers=[2,4,6], quoted if it holds spaces."
        ) from error
    if given is not None and not isinstance(given, dict):
        raise InputError(
            f"command line: {overrides.strip()!r} is no option; write "
            "--name=value."
        )
    return given or {}


def _set_seed(path: str, text: str, given: dict[str, Any]) -> None:
    """Seed the weights that the YAML is about to initialise."""
    seed = re.search(r"^seed:\s*([^#\n]*)", text, flags=re.MULTILINE)
    seed = given.get("seed", yaml.safe_load(seed[1]) if seed else None)
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise InputError(
            f"seed: {seed!r} in {path} or on the command line must be an "
            "integer from 0 to 4294967295, for example --seed=1986."
        )
    seed_everything(seed, verbose=False)


def _explained(path: str, error: Exception) -> InputError:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, InputError):
        return cause
    said = one_line(error, 300)
    if "!PLACEHOLDER" in str(error):
        return InputError(
            f"{path}: an option without a default was not given ({said}); "
            "pass it on the command line, for example "
            "--data_folder=/path/to/LibriSpeech."
        )
    return InputError(
        f"{path}: cannot be loaded: {said}. Check the values that were given "
        "on the command line and in the YAML."
    )


def _check_known(path: str, keys: list[str], text: str) -> None:
    missing = sorted(READ_KEYS.difference(keys))
    if missing:
        raise InputError(
            f"{path}: lacks the options {', '.join(missing)}; take them over "
            "from a YAML that comes with the recipe, in hparams/."
        )
    referred = set(re.findall(r"<([A-Za-z_]\w*)", text))
    known = READ_KEYS | SYSTEM_KEYS | BRAIN_KEYS | OPTIONAL_KEYS.keys()
    known |= referred
    if unknown := [key for key in keys if key not in known]:
        own = _read_by_own_code(text)
        unknown = [key for key in unknown if key not in own]
    for key in unknown:
        raise InputError(
            f"{path}: the option `{key}` is unknown: nothing reads it, not in "
            "code of your own either (train.py, what the YAML names, and what "
            "these import), which must spell it out, as in "
            f"self.hparams.{key}.{_suggest(key, sorted(known))}"
        )


def _read_by_own_code(text: str) -> set[str]:
    """What may be keys in the user's code: ``.key``, ``"key"``.

    Looked at are the script that runs, the modules that the YAML names, and
    those outside of installed packages that these import.
    """
    modules = [sys.modules["__main__"]]
    for name in re.findall(r"!(?:new|name|apply):([\w.]+)", text):
        with suppress(Exception):  # said where the YAML is loaded
            modules.append(inspect.getmodule(pydoc.locate(name)))
    keys, seen = set(), set()
    others = {__name__.partition(".")[0], "speechbrain", "torch"}
    others |= sys.stdlib_module_names
    while modules:
        module = modules.pop()
        name = getattr(module, "__name__", "torch")
        if name in seen or name.partition(".")[0] in others:
            continue
        seen.add(name)
        with suppress(Exception):  # not from a file, or lazy ones
            source = inspect.getsource(module)
            keys |= set(re.findall(r"""[."'](\w+)""", source))
            for value in vars(module).values():
                if not inspect.ismodule(value):
                    value = sys.modules.get(getattr(value, "__module__", ""))
                if "-packages" not in getattr(value, "__file__", "-packages"):
                    modules.append(value)
    return keys


def _suggest(key: str, valid: list[str]) -> str:
    close = difflib.get_close_matches(key, valid, n=3)
    if close:
        return f" Did you mean {' or '.join(close)}?"
    return f" Known options: {', '.join(sorted(valid))}."
