"""What a user runs: trained models that really stop early.

====================  ====================================================
module                what it holds
====================  ====================================================
``asr``               ``EarlyExitASR``: transcribe audio
``live``              the runner that lets utterances leave the batch
``policies``          from a name, a budget or a file to a policy
``transcribe``        the command of that name
``model_folder``      inference folders: ``read_model_folder`` and its pair
``architecture``      a model as plain data
``hyperparams``       that data out of a run's ``hyperparams.yaml``
``weights``           safetensors
``from_training``     the output folder of a run as an inference folder
``export_command``    the command ``export``
``card``, ``hub``     model card, publishing and fetching
``onnx_export``       graphs for onnxruntime; ``onnx_host`` runs them
``bench``             the command of that name
====================  ====================================================

Authors
 * The speechbrain-ee contributors 2026
"""
