"""Publishing an inference folder: its model card, and a hub.

The package huggingface_hub is optional, and asked for when it is needed.

Authors
 * The speechbrain-ee contributors 2026
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.cost import CostModel
from speechbrain_ee.exits.trace import MACS_REFERENCE_S
from speechbrain_ee.inference.folder import model_folder
from speechbrain_ee.inference.folder.architecture import BACKBONE_FOLDER
from speechbrain_ee.inference.folder.model_folder import ModelFolder
from speechbrain_ee.models.ssl import SSLEncoder
from speechbrain_ee.training.checkpoints import POLICY_FOLDER

_TEMPLATES = Path(__file__).parent / "templates"
_FEW = 500  # utterances of a set, below which its numbers are rough
# What an inference folder holds. Pickles and code are not even fetched.
FILES = (
    *model_folder.FILES,
    f"{POLICY_FOLDER}/*.yaml",
    f"{BACKBONE_FOLDER}/*.json",
)


def model_card(folder: ModelFolder) -> str:
    """Describe a model in Markdown, with the front matter that hubs read."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=False,  # it is Markdown
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    costs, measured = CostModel(folder.model), folder.measured
    counts = {row.set: row.utterances for row in measured}
    choices = dict.fromkeys(row.choice for row in measured)
    rows = dict.fromkeys((name, each) for name in counts for each in choices)
    macs = costs.macs(round(MACS_REFERENCE_S * folder.sample_rate))
    return environment.get_template("card.md.j2").render(
        folder=folder,
        exits=len(folder.exit_layers),
        default=default_words(folder.default_policy, folder.default_reason),
        encoder=_encoder(folder),
        attention=folder.model.attention,
        pieces=folder.tokenizer.get_piece_size(),
        seconds=f"{MACS_REFERENCE_S:g}",
        sizes=list(zip(folder.exit_layers, costs.parameters(), macs)),
        counts=counts,
        choices=choices,
        measured=rows | {(row.set, row.choice): row for row in measured},
        few=sorted(name for name, count in counts.items() if count < _FEW),
        least=_FEW,
    )


def default_words(name: str | None, reason: str) -> str:
    """The default policy (None: the last exit), and why it is that."""
    if name is None:
        return f"`last`, the last exit: {reason}" if reason else "`last`."
    return f"`{name}`, which {reason}" if reason else f"`{name}`."


def _encoder(folder: ModelFolder) -> str:
    encoder = folder.model.encoder
    depth = len(encoder.layers)
    width = folder.model.heads.norms[0].normalized_shape[0]
    if isinstance(encoder, SSLEncoder):
        kind = f"Pre-trained encoder of type {encoder.config.model_type}"
    else:
        kind = type(encoder.layers[0]).__name__
        kind = kind.removeprefix("Masked").removesuffix("Layer")
        kind = f"{kind.removesuffix('Encoder')} encoder"
        kind += f" ({encoder.attention_type})"
    return f"{kind} of {depth} layers, {width} wide"


def push_to_hub(folder: str | Path, repo_id: str, private: bool = False) -> str:
    """Publish a folder under the account that is logged in, and say where.

    It is read first, so that nothing broken is published.
    """
    model_folder.read_model_folder(folder)
    remedy = (
        "check the name, the connection, and that you are logged in (`hf "
        "auth login`)"
    )
    with _hub(repo_id, "could not be published", remedy) as hub:
        hub.create_repo(repo_id, private=private, exist_ok=True)
        found = hub.upload_folder(
            repo_id=repo_id,
            folder_path=str(folder),
            allow_patterns=list(FILES),
        )
    return str(found)


def fetch_folder(repo_id: str, savedir: str | Path | None = None) -> Path:
    """Fetch a folder, not read yet; files of no other kind come with it.

    It is kept in ``savedir``, by default in the hub's own cache.
    """
    problem = "not a folder here, and could not be fetched from the hub"
    with _hub(repo_id, problem, "check the name and the connection") as hub:
        found = hub.snapshot_download(
            repo_id,
            local_dir=None if savedir is None else str(savedir),
            allow_patterns=list(FILES),
        )
    return Path(found)


@contextmanager
def _hub(repo_id: str, problem: str, remedy: str) -> Iterator[Any]:
    """The hub's package, whose errors name what could not be done."""
    if repo_id.startswith((".", "/", "~")) or repo_id.count("/") != 1:
        raise InputError(
            f"{repo_id}: there is no such folder, and it is no hub name; give "
            "an inference folder, or a name such as owner/model."
        )
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise InputError(
            "the hub needs the package huggingface_hub, which is not "
            f"installed or does not import ({error}): pip install "
            "huggingface_hub."
        ) from error
    try:
        yield hub
    except Exception as error:  # of a dozen kinds: network, names, rights
        short = " ".join(str(error).split()).partition(". ")[0][:200]
        raise InputError(
            f"{repo_id}: {problem} ({short}); {remedy}."
        ) from error
