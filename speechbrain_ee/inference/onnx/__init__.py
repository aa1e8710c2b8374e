"""The same recogniser as ONNX graphs, and a host that runs them.

Authors
 * The speechbrain-ee contributors 2026
"""
