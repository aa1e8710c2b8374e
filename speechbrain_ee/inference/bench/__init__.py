"""The command that measures speed, memory and errors.

Authors
 * The speechbrain-ee contributors 2026
"""
