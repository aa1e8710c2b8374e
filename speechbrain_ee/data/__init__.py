"""What goes in: corpora, manifests, tokens and batches.

================  ========================================================
module            what it holds
================  ========================================================
``corpora``       LibriSpeech's layout, TED-LIUM 3, VoxPopuli: who says what
                  (``tedlium`` and ``voxpopuli`` are what recipes link to)
``preparation``   from a corpus to its manifests
``manifests``     reading and checking them; parts of recordings
``audio``         samples of an utterance
``words``         how transcripts are written
``tokens``        the tokenizer of an experiment
``batches``       data sets and their batches
``shards``        corpora in tar archives, the command ``shards``
``demo/``         a corpus that is made, not downloaded
================  ========================================================

Authors
 * The speechbrain-ee contributors 2026
"""

import importlib
from typing import Any

# By name, the module; imported when asked for, see PEP 562.
_HOMES = {
    "AudioReader": "audio",
    "Clip": "manifests",
    "SplitReport": "preparation",
    "build_demo_corpus": "demo",
    "make_datasets": "batches",
    "make_tokenizer": "tokens",
    "normalised": "words",
    "prepare_librispeech": "corpora",
    "prepare_tedlium3": "corpora",
    "prepare_voxpopuli": "corpora",
    "read_manifest": "manifests",
    "train_loader_options": "batches",
    "write_shards": "shards",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
