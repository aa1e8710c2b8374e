"""Groups of parameters that an optimiser treats alike.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from speechbrain_ee.models.model import EarlyExitModel
from speechbrain_ee.training.regimes import Regime, encoder_parts


def backbone_groups(
    model: EarlyExitModel, regime: Regime
) -> list[dict[str, Any]]:
    """The encoder's trainable parameters, grouped by learning rate.

    Arguments
    ---------
    model : EarlyExitModel
        The model, as ``regime.prepare`` has left it.
    regime : Regime
        Its ``layer_decay`` counts.

    Returns
    -------
    list of dict
        Groups for an optimiser, from the top down; ``lr_scale`` is what the
        learning rate is multiplied by, 1 in the first group.
    """
    top = regime.top(model)
    by_scale: dict[float, list[nn.Parameter]] = {}
    for depth, _, module in encoder_parts(model.encoder):
        scale = float(regime.layer_decay) ** (top - depth)
        trained = [p for p in module.parameters() if p.requires_grad]
        if trained:
            by_scale.setdefault(scale, []).extend(trained)
    # The same decay for every depth makes one group, in the modules' order.
    return [
        {"params": by_scale[scale], "lr_scale": scale}
        for scale in sorted(by_scale, reverse=True)
    ]


def without_vector_decay(
    groups: Iterable[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Groups of parameters, with biases and norms apart and undecayed.

    Arguments
    ---------
    groups : iterable of dict
        Groups for an optimiser.

    Returns
    -------
    list of dict
        Up to two for each; vectors have ``weight_decay`` 0.
    """
    apart = []
    for group in groups:
        matrices = [p for p in group["params"] if p.dim() != 1]
        vectors = [p for p in group["params"] if p.dim() == 1]
        if matrices:
            apart.append({**group, "params": matrices})
        if vectors:
            apart.append({**group, "params": vectors, "weight_decay": 0.0})
    return apart
