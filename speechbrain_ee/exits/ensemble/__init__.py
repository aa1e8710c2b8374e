"""Combining exits: averages of the log-probabilities computed so far.

=================  ========================================================
module             what it holds
=================  ========================================================
``ensemble``       ``ExitCombination``: weights per exit, and the average
``ensemble_fit``   weights learned on development data
``ensemble_file``  those weights as a file
=================  ========================================================

Authors
 * The speechbrain-ee contributors 2026
"""
