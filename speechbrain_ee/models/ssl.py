"""The place where YAMLs of earlier versions look for pre-trained encoders.

Authors
 * The speechbrain-ee contributors 2026
"""

from speechbrain_ee.models.pretrained import SSLEncoder

__all__ = ["SSLEncoder"]
