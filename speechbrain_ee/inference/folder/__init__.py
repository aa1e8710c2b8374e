"""Inference folders: a trained model as plain data, and back.

Authors
 * The speechbrain-ee contributors 2026
"""
