"""``torch.compile`` for the layers of an early-exit model.

Authors
 * The speechbrain-ee contributors 2026
"""

from speechbrain_ee.models.model import EarlyExitModel


def compile_segments(
    model: EarlyExitModel, backend: str = "inductor"
) -> EarlyExitModel:
    """Compile what runs between two exits, in place.

    A segment is compiled layer by layer, with dynamic batch and time: layers
    of one shape share what was compiled, so that the time to compile does not
    grow with depth, and an utterance can leave after any of them. The first
    batches are slow.

    Arguments
    ---------
    model : EarlyExitModel
        In evaluation mode. Names of parameters do not change.
    backend : str
        See :func:`torch.compile`; ``inductor`` needs a C++ compiler on CPUs.

    Returns
    -------
    EarlyExitModel
        The same model.
    """
    for layer in model.encoder.layers:
        layer.compile(dynamic=True, backend=backend)
    return model
