"""What learns, and what is kept of it.

What a YAML or a script of a user's own names:

* ``systems``: the Brains ``CTCEarlyExitBrain``, ``CTCAttentionEarlyExitBrain``
* ``losses.LossTerm``: a loss of one's own
* ``distillation.Distillation``, ``frozen_teacher.load_teacher``
* ``regimes.Regime``, ``schedules.WarmupCooldown``: fine-tuning
* ``checkpoints.AtomicCheckpointer``
"""
