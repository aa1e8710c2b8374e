"""The contribution as files of a SpeechBrain checkout.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import ruamel.yaml
import speechbrain

from speechbrain_ee.errors import InputError
from upstream.gates import RECIPE, ROOT, TABLE, TREE

# SpeechBrain's own preparation, to which all its LibriSpeech recipes link.
LINK = f"{RECIPE}/librispeech_prepare.py"
PREPARATION = "../../librispeech_prepare.py"
SHARED_PREPARATION = "recipes/LibriSpeech/librispeech_prepare.py"
WRITTEN = (".csv", ".md", ".py", ".yaml")  # not the settings of linters
# Keys that our YAMLs of a Conformer and the contributed one have in common.
SHARED = (
    "number_of_epochs lr warmup_share cooldown_share weight_decay "
    "max_grad_norm grad_accumulation_factor precision exit_weights "
    "keep_checkpoints average_checkpoints train_dataloader_opts "
    "valid_dataloader_opts test_dataloader_opts token_type output_neurons "
    "exit_layers tied_heads num_encoder_layers d_model nhead d_ffn kernel_size "
    "attention_type encoder_module dropout seed train_splits dev_splits "
    "test_splits"
).split()


def write(out: Path) -> list[str]:
    """Write the contribution into a SpeechBrain checkout, or a new folder.

    Its rows are appended to the checkout's table of recipes; everything else
    are files of its own, which are replaced. Returns the names of the files.
    """
    names = []
    try:
        for path in sorted(TREE.rglob("*.*")):
            name = path.relative_to(TREE).as_posix()
            if path.suffix not in WRITTEN or name.startswith("."):
                continue
            target = out / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if name == TABLE and target.exists():
                known = target.read_text(encoding="utf-8").splitlines()
                rows = path.read_text(encoding="utf-8").splitlines()
                known += [row for row in rows if row not in known]
                target.write_text("\n".join(known) + "\n", encoding="utf-8")
            else:
                shutil.copyfile(path, target)
            names.append(name)
        link = out / LINK
        link.unlink(missing_ok=True)
        link.symlink_to(PREPARATION)
    except OSError as error:
        raise InputError(
            f"{out}: the contribution cannot be written there ({error}); give "
            "a SpeechBrain checkout, or a folder that is to be made."
        ) from error
    return [*names, LINK]


def merged(out: Path) -> Path:
    """A new checkout, of links: the installed SpeechBrain, the contribution.

    SpeechBrain's data preparation is not installed with it: ours is there.
    """
    shutil.copytree(
        Path(speechbrain.__file__).parent,
        out / "speechbrain",
        copy_function=os.symlink,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    write(out)
    ours = ROOT / "recipes/LibriSpeech/EarlyExit" / Path(LINK).name
    (out / SHARED_PREPARATION).symlink_to(ours.resolve())
    return out


def overrides_like(system: str) -> dict[str, Any]:
    """What makes the contributed Conformer one of our systems.

    Arguments
    ---------
    system : str
        Name of a YAML in ``hparams/`` whose learning rate warms up and cools
        down, such as ``demo`` or ``digits``.

    Returns
    -------
    dict
        Values by key of ``hparams/conformer_ctc.yaml`` in the contribution.
    """
    path = ROOT / "hparams" / f"{system}.yaml"
    # as plain values: nothing is built
    ours = ruamel.yaml.YAML().load(path.read_text(encoding="utf-8"))
    found = {key: ours[key] for key in SHARED}
    found["dynamic_batch_sampler"] = ours["dynamic_batching"]
    found |= {key: dict(ours[key]) for key in ("time_drop", "freq_drop")}
    found["channels"] = ours["front_end"]["out_channels"]
    found["input_size"] = ours["stack"]["input_size"]
    return json.loads(json.dumps(found))
