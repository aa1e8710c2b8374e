"""The model card: README.md of an inference folder.

Authors
 * The speechbrain-ee contributors 2026
"""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from speechbrain_ee.evaluation.cost import CostModel
from speechbrain_ee.exits.trace import MACS_REFERENCE_S
from speechbrain_ee.inference.folder.model_folder import ModelFolder

_TEMPLATES = Path(__file__).parent / "templates"
_FEW = 500  # utterances of a set, below which its numbers are rough


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
    if folder.architecture is not None and folder.architecture.uses_backbone:
        kind = f"Pre-trained encoder of type {encoder.config.model_type}"
    else:
        kind = type(encoder.layers[0]).__name__
        kind = kind.removeprefix("Masked").removesuffix("Layer")
        kind = f"{kind.removesuffix('Encoder')} encoder"
        kind += f" ({encoder.attention_type})"
    return f"{kind} of {depth} layers, {width} wide"
