"""What a user runs: trained models that really stop early.

================  ========================================================
module            what it holds
================  ========================================================
``asr``           ``EarlyExitASR``: load a folder, transcribe audio
``hypothesis``    what is said of an utterance, times of words
``runner``        utterances leave the batch where a policy stops them
``policies``      from a name, a budget or a file to a policy; ladders
``controller``    hold a real-time factor while the load changes
``recordings``    finding and reading recordings of any kind and length
``segmentation``  where somebody speaks; cutting at pauses
``transcriber``   batches of like length from a stream of recordings
``transcripts``   ``Transcript``, its formats, and where they are written
``transcribe``    the command of that name
``export``        the command of that name
``bench``         the command of that name: speed, memory and errors
``spoken``        utterances to measure on
``folder/``       model folders: architecture, weights, policies, card, hub
``onnx/``         graphs; ``onnx.host.OnnxRecogniser`` runs them without torch
================  ========================================================

Nothing is imported here: the host of graphs runs where there is no torch.

Authors
 * The speechbrain-ee contributors 2026
"""
