"""Calibration: from a budget to thresholds, and the policy file.

==================  =======================================================
module              what it holds
==================  =======================================================
``budget``          what must hold: average compute, or word errors
``ladder``          candidates: one threshold, or one per exit
``risk``            which candidates pass: naive, CRC, Learn then Test
``calibrate``       the three together: ``calibrate``
``exit_policy``     a calibrated policy with its promise
``policy_file``     ``read_policy``, ``write_policy``
``policy_parse``    the checks of that file
``shift``           does the target look like the calibration data?
==================  =======================================================

Authors
 * The speechbrain-ee contributors 2026
"""
