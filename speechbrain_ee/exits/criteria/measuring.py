"""Take all measures of a batch at an exit.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence

from torch import Tensor

from speechbrain_ee.exits.criteria.registry import get_measure, measure_names
from speechbrain_ee.exits.criteria.view import ExitView


def not_measured(view: ExitView) -> dict[str, str]:
    """Measures that :func:`measure_all` leaves out, although they could be.

    Those that look further back than there are exits, or at what another way
    of decoding finds, are not meant.

    Arguments
    ---------
    view : ExitView
        A batch at the last exit.

    Returns
    -------
    dict of str to str
        Why, by name.
    """
    found = [get_measure(n) for n in measure_names()]
    has_hidden = getattr(view.output, "hidden_BTD", None) is not None
    why = {m.name: "costly: not always taken" for m in found if not m.always}
    if not has_hidden:
        reason = "the model gives no hidden states"
        why |= {m.name: reason for m in found if m.hidden}
    return why


def measure_all(
    view: ExitView,
    names: Sequence[str] | None = None,
    decoded: bool = False,
) -> dict[str, Tensor]:
    """Raw evidence for a batch at one exit.

    Arguments
    ---------
    view : ExitView
        The batch at the exit.
    names : sequence of str, optional
        The measures; by default all that are cheap enough to be always
        taken. Those that need more than the view holds are left out.
    decoded : bool
        Take those that look at what an attention decoder found, and no
        others.

    Returns
    -------
    dict of str to tensor of shape (B,)

    Example
    -------
    >>> from types import SimpleNamespace
    >>> import torch
    >>> from speechbrain_ee.exits.criteria import measure_all
    >>> output = SimpleNamespace(
    ...     log_probs_BTV=torch.tensor([[[0.5, 0.5], [0.0, 1.0]]]).log(),
    ...     lengths_B=torch.tensor([2]),
    ...     blank_index=0,
    ... )
    >>> round(measure_all(ExitView(output))["max_prob"].item(), 3)
    0.75
    """
    measured = {}
    has_hidden = getattr(view.output, "hidden_BTD", None) is not None
    for found in map(get_measure, measure_names() if names is None else names):
        if names is None and not found.always:
            continue
        if names is None and found.decodes != decoded:
            continue
        if found.earlier > len(view.earlier):
            continue
        if found.hidden and not has_hidden:
            continue
        if found.decodes and view.nbest is None:
            continue
        measured[found.name] = found.function(view)
    return measured
