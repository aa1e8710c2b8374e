"""Weights: written once, read whole, or not at all.

Authors
 * The speechbrain-ee contributors 2026
"""

import pytest
import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.folder.model_folder import (
    read_model_folder,
)
from speechbrain_ee.inference.folder.weights import (
    load_weights,
    model_weights,
    write_weights,
)
from tests.helpers import tiny_model
from tests.inference.runs import (
    log_probs,
    same,
)


@pytest.mark.parametrize("tied", [False, True])
def test_tied_parameters_are_written_once_and_stay_tied(tmp_path, tied):
    def model(seed):
        made = tiny_model(seed=seed)
        if tied:  # two names for one parameter
            one, two = made.heads.projections
            two.weight = one.weight
        return made

    one, two = model(0), model(1)
    write_weights(tmp_path / "w", one)
    load_weights(tmp_path / "w", two)
    assert same(log_probs(one), log_probs(two))
    name = "heads.projections.1.weight"
    assert (name in model_weights(one)) != tied
    shared = two.heads.projections
    assert (shared[0].weight is shared[1].weight) == tied


def test_statistics_of_the_corpus_come_along(tmp_path):
    def model(seed):
        made = tiny_model(seed=seed)
        made.encoder.features.normalize.norm_type = "global"
        return made

    one, two = model(0), model(1)
    with pytest.raises(InputError, match="features.normalize: its statistics"):
        write_weights(tmp_path / "w", one)
    norm = one.encoder.features.normalize
    norm.count, norm.glob_mean = 3, torch.linspace(-1, 1, 16)
    norm.glob_std = torch.linspace(1, 2, 16)
    write_weights(tmp_path / "w", one)
    load_weights(tmp_path / "w", two)
    assert same(log_probs(one), log_probs(two))
    # a model without them does not take them, and the other way round
    with pytest.raises(InputError, match="normalize.count is not a tensor"):
        load_weights(tmp_path / "w", tiny_model())
    write_weights(tmp_path / "w", tiny_model())
    with pytest.raises(InputError, match="normalize.count is missing"):
        load_weights(tmp_path / "w", two)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.3, 0.9, 0.9999])
def test_cut_weights_are_refused(copied, share):
    path = copied / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=f"{path}: not a whole safetensors"):
        read_model_folder(copied)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"d_model": 32}, "of shape"),
        ({"num_layers": 6, "exit_layers": (2, 6)}, "is not a tensor of it"),
        ({"exit_layers": (2,)}, "is missing"),
    ],
)
def test_weights_of_another_model_are_refused(tmp_path, options, said):
    write_weights(tmp_path / "w", tiny_model(**options))
    model = tiny_model()
    before = log_probs(model)
    with pytest.raises(InputError, match=f"{tmp_path / 'w'}: .*{said}"):
        load_weights(tmp_path / "w", model)
    assert same(log_probs(model), before)  # nothing was half loaded


def test_weights_of_another_precision_are_refused(tmp_path):
    write_weights(tmp_path / "w", tiny_model().half())
    with pytest.raises(InputError, match="is F16 of shape .* with F32"):
        load_weights(tmp_path / "w", tiny_model())
