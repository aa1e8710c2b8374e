"""The model card: README.md of an inference folder.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Mapping

from speechbrain_ee.evaluation.cost import CostModel
from speechbrain_ee.exits.trace import MACS_REFERENCE_S
from speechbrain_ee.inference.folder.model_folder import (
    CALIBRATION_FILE,
    TOKENIZER_FILE,
    Measured,
    ModelFolder,
)
from speechbrain_ee.inference.folder.weights import WEIGHTS_FILE

_FEW = 500  # utterances of a set, below which its numbers are rough


def model_card(folder: ModelFolder) -> str:
    """Describe a model: what it is, what it can do, how to use it."""
    parts = [
        _front_matter(),
        f"# {folder.name}",
        _introduction(folder),
        "## Use\n\n" + _use(folder),
        "## Architecture\n\n" + _architecture(folder),
    ]
    if folder.facts:
        parts.append("## Data and training\n\n" + _list(folder.facts))
    if folder.measured:
        parts.append("## Measured\n\n" + _measured(folder))
    if folder.policies:
        parts.append("## Policies\n\n" + _policies(folder))
    parts.append("## Limitations\n\n" + _limitations(folder))
    return "\n\n".join(parts) + "\n"


def _front_matter() -> str:
    return (
        "---\n"
        "library_name: speechbrain-ee\n"
        "pipeline_tag: automatic-speech-recognition\n"
        "tags:\n- speech-recognition\n- early-exit\n- speechbrain\n"
        "---"
    )


def _introduction(folder: ModelFolder) -> str:
    exits = len(folder.exit_layers)
    if exits == 1:
        return (
            f"A speech recogniser of {folder.exit_layers[0]} encoder layers "
            "with one exit."
        )
    return (
        f"A speech recogniser with {exits} exits. An utterance leaves the "
        "encoder at the first exit that is good enough for it; the layers "
        "above are not computed. The same model serves every compute budget: "
        "the policy that decides can be changed at any time."
    )


def _use(folder: ModelFolder) -> str:
    choices = [f"`1` to `{len(folder.exit_layers)}`", "`last`"]
    choices += [f"`{name}`" for name in folder.policies]
    if folder.calibration is not None and len(folder.exit_layers) > 1:
        choices.append("a budget such as `macs=60%` or `wer=+2%`")
    return (
        "```python\n"
        "from speechbrain_ee.inference.asr import EarlyExitASR\n\n"
        'asr = EarlyExitASR.from_hparams("path/of/this/folder")\n'
        'hypothesis = asr.transcribe("speech.wav")\n'
        "print(hypothesis.text, hypothesis.exit, hypothesis.words)\n"
        "asr.policy = 1  # nothing is loaded again\n"
        "```\n\n"
        "```\n"
        "python -m speechbrain_ee transcribe speech.wav --model "
        "path/of/this/folder\n"
        "```\n\n"
        f"Policies: {', '.join(choices)}. Default: "
        f"{default_words(folder.default_policy, folder.default_reason)}\n\n"
        f"Audio of any rate is resampled to {folder.sample_rate} Hz. "
        f"Hypotheses are made by `{folder.decoding}`."
    )


def default_words(name: str | None, reason: str) -> str:
    """The default policy (None: the last exit), and why it is that."""
    if name is None:
        return f"`last`, the last exit: {reason}" if reason else "`last`."
    return f"`{name}`, which {reason}" if reason else f"`{name}`."


def _architecture(folder: ModelFolder) -> str:
    model = folder.model
    costs = CostModel(model)
    macs = costs.macs(round(MACS_REFERENCE_S * folder.sample_rate))
    rows = [
        [str(exit), str(layer), f"{count / 1e6:.2f}", f"{cost / 1e9:.3f}"]
        for exit, layer, count, cost in zip(
            range(1, len(macs) + 1),
            folder.exit_layers,
            costs.parameters(),
            macs,
        )
    ]
    decoders = ""
    if model.attention is not None:
        kind = "shared by" if model.attention.shared else "one for each of"
        decoders = f", and an attention decoder {kind} the exits"
    pieces = folder.tokenizer.get_piece_size()
    return (
        f"{_encoder(folder)}; a CTC head at every exit{decoders}; {pieces} "
        "tokens. Parameters are those of the model truncated at the exit, "
        f"multiply-accumulates (MACs) for {MACS_REFERENCE_S:g} s of audio.\n\n"
        + _table(["exit", "layer", "parameters, M", "GMAC"], rows)
    )


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


def _measured(folder: ModelFolder) -> str:
    """One table: exits and policies, the test sets side by side."""
    sets = list(dict.fromkeys(row.set for row in folder.measured))
    choices = list(dict.fromkeys(row.choice for row in folder.measured))
    found = {(row.set, row.choice): row for row in folder.measured}
    head = ["choice"]
    for name in sets:
        head += [f"{name}: WER, %", "layers", "MMAC"]
    rows = []
    for choice in choices:
        row = [f"`{choice}`" if choice in folder.policies else choice]
        if choice == folder.default_policy:
            row[0] += " (default)"
        for name in sets:
            row += _cells(found.get((name, choice)))
        rows.append(row)
    counts = {row.set: row.utterances for row in folder.measured}
    sizes = ", ".join(f"{name} {counts[name]}" for name in sets)
    return (
        "Word error rate, average encoder layers and average "
        "multiply-accumulates per utterance, those of the policy's criterion "
        f"included. Utterances: {sizes}.\n\n" + _table(head, rows)
    )


def _cells(row: Measured | None) -> list[str]:
    if row is None:
        return ["", "", ""]
    macs = "" if row.macs is None else f"{row.macs / 1e6:.0f}"
    return [f"{row.wer:.2f}", f"{row.layer:.2f}", macs]


def _policies(folder: ModelFolder) -> str:
    lines = []
    for name, policy in folder.policies.items():
        promise = policy.guarantee or "no promise."
        default = " (default)" if name == folder.default_policy else ""
        lines.append(
            f"* `{name}`{default}: {policy.criterion}, {policy.budget}, "
            f"calibrated by {policy.method}. {promise}"
        )
    return "\n".join(lines)


def _limitations(folder: ModelFolder) -> str:
    lines = [
        "* The error rates hold for speech like that of the test sets; other "
        "languages, accents, noise or rooms make more errors.",
        "* Policies are calibrated on the development set. On other speech "
        "the same threshold gives another depth and may break its budget: "
        "calibrate again on some of that speech.",
        "* Multiply-accumulates are counted, not measured; what time they "
        "take depends on the machine (`python -m speechbrain_ee bench`).",
    ]
    few = sorted({r.set for r in folder.measured if r.utterances < _FEW})
    if few:
        lines.append(
            f"* {', '.join(few)}: fewer than {_FEW} utterances, so that small "
            "differences are chance."
        )
    if not folder.measured:
        lines.append("* No test set was measured for this folder.")
    if folder.calibration is not None:
        lines.append(
            f"* `{CALIBRATION_FILE}` holds scores and errors of development "
            "utterances, no transcripts and no names of speakers."
        )
    lines.append(
        f"* `{WEIGHTS_FILE}` and `{TOKENIZER_FILE}` may fall under the terms "
        "of the data that they were trained on."
    )
    return "\n".join(lines)


def _list(facts: Mapping[str, str]) -> str:
    return "\n".join(f"* {key}: {value}" for key, value in facts.items())


def _table(head: list[str], rows: list[list[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])
