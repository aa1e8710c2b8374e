"""The live runner: utterances leave a batch where a policy stops them.

Authors
 * The speechbrain-ee contributors 2026
"""
