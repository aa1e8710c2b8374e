"""What a folder may hold, and what is never executed.

Authors
 * The speechbrain-ee contributors 2026
"""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.folder.model_folder import (
    read_model_folder,
)
from tests.inference.runs import (
    Bomb,
)


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "tokenizer.model",
        "selector.json.gz",
        "calibration.jsonl.gz",
        "combination.json",
        "config.json",
    ],
)
@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_pickle_bomb_is_refused(copied, tmp_path, name, kind):
    bomb = Bomb(tmp_path / "marker")
    if kind == "torch":
        torch.save(bomb, copied / name)
    else:
        (copied / name).write_bytes(pickle.dumps(bomb))
    with pytest.raises(InputError, match=str(copied / name)):
        read_model_folder(copied)
    assert not bomb.marker.exists()


@pytest.mark.parametrize("name", ["model.pt", "model.ckpt", "weights.bin"])
def test_pickled_weights_are_never_read(copied, tmp_path, name):
    bomb = Bomb(tmp_path / "marker")
    torch.save(bomb, copied / name)
    read_model_folder(copied)  # beside the weights it is left alone
    (copied / "model.safetensors").unlink()
    with pytest.raises(InputError, match=f"{name} may hold pickled.*not read"):
        read_model_folder(copied)
    assert not bomb.marker.exists()


@pytest.mark.parametrize(
    "tag", ["!apply:os.system", "!!python/object/apply:os.system"]
)
def test_a_policy_that_would_be_executed_is_refused(copied, tmp_path, tag):
    path = copied / "policies/entropy.naive.yaml"
    marker = tmp_path / "marker"
    text = path.read_text("utf-8")
    path.write_text(f"bomb: {tag} [touch {marker}]\n{text}", "utf-8")
    with pytest.raises(InputError, match="entropy.naive.yaml.*plain values"):
        read_model_folder(copied)
    assert not marker.exists()


def test_a_backbone_that_names_code_is_refused(exported, tmp_path):
    folder = Path(shutil.copytree(exported("tiny_ssl"), tmp_path / "f"))
    for name in ("config.json", "preprocessor_config.json"):
        path = folder / "backbone" / name
        good = path.read_text("utf-8")
        content = json.loads(good) | {"auto_map": {"AutoModel": "evil.Model"}}
        path.write_text(json.dumps(content), "utf-8")
        with pytest.raises(InputError, match=f"{path}, key auto_map"):
            read_model_folder(folder)
        path.unlink()
        with pytest.raises(InputError, match=f"{path}: there is no such file"):
            read_model_folder(folder)
        path.write_text(good, "utf-8")
    read_model_folder(folder)
