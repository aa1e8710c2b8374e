"""Searches over the keys of a recipe's YAML, on one machine or a cluster."""
