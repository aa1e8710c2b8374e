"""Recordings of any length: reading, cutting, writing what was said.

Authors
 * The speechbrain-ee contributors 2026
"""
