"""What the comments of conformer_aed.yaml say is so.

Authors
 * The speechbrain-ee contributors 2026
"""

import re
from pathlib import Path

import pytest
import torch
from speechbrain.lobes.models.transformer.TransformerLM import TransformerLM

from speechbrain_ee.training.options import load_options

YAML = Path(__file__).resolve().parents[2] / "hparams/conformer_aed.yaml"
TEXT = YAML.read_text("utf-8")
TINY = "d_model: 16\nnhead: 2\nd_ffn: 32\noutput_neurons: 40\n"


def load(path: Path, folder: Path, overrides: str = "") -> dict:
    given = f"data_folder: none\noutput_folder: {folder}\n"
    return load_options(str(path), given + overrides)


def table() -> list[tuple[str, int, float]]:
    head = TEXT[: TEXT.index("system_name")]
    sizes = [
        int(size)
        for size in re.search(r"# +(\d+ +\d+ +\d+)$", head, re.M)[1].split()
    ]
    cells = []
    for options, *millions in re.findall(
        r"(?m)^#   (\S.*?) {2,}([\d.]+) +([\d.]+) +([\d.]+)$", head
    ):
        flags = re.findall(r"--(\w+)=(\w+)", options)
        overrides = "".join(f"{key}: {value}\n" for key, value in flags)
        cells += [
            (overrides, size, float(million))
            for size, million in zip(sizes, millions)
        ]
    return cells


@pytest.mark.parametrize("overrides, tokens, millions", table())
def test_parameters(
    overrides: str, tokens: int, millions: float, tmp_path: Path
) -> None:
    """Counted, for every cell of the table."""
    options = load(YAML, tmp_path, f"{overrides}output_neurons: {tokens}\n")
    counted = sum(p.numel() for p in options["model"].parameters()) / 1e6
    assert counted == pytest.approx(millions, abs=0.051)


def test_language_model_without_the_comment_signs(tmp_path: Path) -> None:
    """The lines build a scorer with the weights of the file."""
    start = TEXT.index("#     scorers:")
    end = TEXT.index("\n\n", start)
    lines = re.sub(r"(?m)^# ", "", TEXT[start:end])
    network = TransformerLM(40, 24, 2, d_ffn=32, activation=torch.nn.GELU)
    torch.save(network.state_dict(), tmp_path / "lm.ckpt")
    for old, new in {
        "/path/to/lm.ckpt": f"{tmp_path}/lm.ckpt",
        "d_model: 768": "d_model: 24",
        "nhead: 12": "nhead: 2",
        "d_ffn: 3072": "d_ffn: 32",
    }.items():
        assert lines.count(old) == 1
        lines = lines.replace(old, new)
    yaml = tmp_path / "mine.yaml"
    yaml.write_text(TEXT[:start] + lines + TEXT[end:], "utf-8")
    search = load(yaml, tmp_path, TINY + "search: {beam_size: 3}\n")["search"]
    assert (search.beam_size, search.ctc_weight) == (3, 0.4)
    assert search.scorer_weights == {"transformerlm": 0.6}
    loaded = search.scorers[0].lm
    assert not loaded.training
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name]), name
