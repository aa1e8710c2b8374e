"""CSV manifests for TED-LIUM 3: ``prepare_tedlium3``.

The recipe folder links to this file as ``tedlium3_prepare.py``.

Authors
 * The speechbrain-ee contributors 2026
"""

from speechbrain_ee.data.corpora import prepare_tedlium3

__all__ = ["prepare_tedlium3"]
