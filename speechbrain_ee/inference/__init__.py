"""What a user runs: trained models that really stop early.

===============  =========================================================
module           what it holds
===============  =========================================================
``asr``          ``EarlyExitASR``: transcribe audio
``policies``     from a name, a budget or a file to a policy
``source``       from a folder, the hub or a training run to a model
``transcribe``   the command of that name
``export``       the command of that name
``live/``        the runner that lets utterances leave the batch; scores,
                 costs, times of words; the latency controller
``folder/``      inference folders: architecture, weights, policies, card
``recordings/``  reading, cutting and batching audio; formats of transcripts
``onnx/``        graphs for onnxruntime, and a host without torch
``bench/``       the command that measures speed
===============  =========================================================

Authors
 * The speechbrain-ee contributors 2026
"""
