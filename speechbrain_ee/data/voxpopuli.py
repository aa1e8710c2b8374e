"""CSV manifests for VoxPopuli: ``prepare_voxpopuli``.

The recipe folder links to this file as ``voxpopuli_prepare.py``.

Authors
 * The speechbrain-ee contributors 2026
"""

from speechbrain_ee.data.corpora import prepare_voxpopuli

__all__ = ["prepare_voxpopuli"]
