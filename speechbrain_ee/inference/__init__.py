"""What a user runs: trained models that really stop early.

===============  =========================================================
module           what it holds
===============  =========================================================
``asr``          ``EarlyExitASR``: transcribe audio
``hypothesis``   what is said of an utterance, times of words
``runner``       utterances leave the batch where a policy stops them
``policies``     from a name, a budget or a file to a policy; ladders
``controller``   hold a real-time factor while the load changes
``source``       from a folder, the hub or a training run to a model
``transcribe``   the command of that name
``export``       the command of that name
``folder/``      model folders: architecture, weights, policies, card, hub
``recordings/``  reading, cutting and batching audio; formats of transcripts
``onnx/``        graphs for onnxruntime, and a host without torch
``bench/``       the command that measures speed
===============  =========================================================

Authors
 * The speechbrain-ee contributors 2026
"""
