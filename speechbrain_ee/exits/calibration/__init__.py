"""Calibration: from a budget to thresholds, and the policy file.

================  =========================================================
module            what it holds
================  =========================================================
``budget``        what must hold: average compute, or word errors
``risk``          which candidates pass: naive, CRC, Learn then Test
``calibrate``     candidates, and the choice among them: ``calibrate``
``policy_file``   ``ExitPolicy``, ``read_policy``, ``write_policy``
``shift``         do new data look like the calibration data?
================  =========================================================

Authors
 * The speechbrain-ee contributors 2026
"""
