"""What a user runs: trained models that really stop early.

================  ========================================================
module            what it holds
================  ========================================================
``asr``           ``EarlyExitASR``: load a folder, transcribe audio
``policies``      from a name, a budget or a file to a policy
``live``          the loop: who stops at which exit; needs no torch
``runner``        the loop on PyTorch
``onnx/``         graphs; ``onnx.host.OnnxRecogniser`` runs them without torch
``hypothesis``    what is said of an utterance, times of words
``controller``    hold a real-time factor while the load changes; ladders
``recordings``    finding and reading recordings of any kind and length
``segmentation``  where somebody speaks; cutting at pauses
``transcriber``   ``Transcript``; batches from a stream of recordings
``transcribe``    the command of that name; formats of transcripts
``export``        the command of that name
``bench``         the command of that name: speed, memory and errors
``folder/``       model folders: architecture, weights, policies, card, hub
================  ========================================================

Nothing is imported here: the host of graphs runs where there is no torch.

Authors
 * The speechbrain-ee contributors 2026
"""
