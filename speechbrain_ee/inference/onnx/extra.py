"""The packages that graphs need; they are optional, and asked for when used.

Authors
 * The speechbrain-ee contributors 2026
"""

import importlib
from types import ModuleType

from speechbrain_ee.errors import InputError


def load(name: str, purpose: str) -> ModuleType:
    """Import an optional package.

    Arguments
    ---------
    name : str
        Its name.
    purpose : str
        What it is wanted for, for the message.

    Returns
    -------
    module

    Raises
    ------
    InputError
        If it is not installed, or does not import.

    Example
    -------
    >>> load("json", "an example").dumps([1])
    '[1]'
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"{purpose}: {name} is not there ({error}); install onnx and "
            "onnxruntime: pip install 'speechbrain-ee[onnx]'."
        ) from error
