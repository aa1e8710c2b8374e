"""Corpora in tar archives, for those that do not fit a local disk."""
