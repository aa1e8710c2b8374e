"""Early-exit speech recognition with SpeechBrain.

Rooms, in the order in which the data walks through them:

* :mod:`speechbrain_ee.data` -- corpora, manifests, tokens, batches
* :mod:`speechbrain_ee.models` -- features, layer-wise encoder, exit heads
* :mod:`speechbrain_ee.exits` -- traces, criteria, policies, the oracle
* :mod:`speechbrain_ee.training` -- losses and Brain classes
* :mod:`speechbrain_ee.evaluation` -- costs, curves, reports
* :mod:`speechbrain_ee.inference` -- transcribing, exporting, measuring speed
* :mod:`speechbrain_ee.sweeps` -- searches over keys of a YAML

Authors
 * The speechbrain-ee contributors 2026
"""

__version__ = "0.1.0"
