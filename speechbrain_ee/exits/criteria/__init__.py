"""Exit criteria: what says that an exit is good enough.

Importing this module fills the registries. What measures an exit's frames is
in :mod:`~speechbrain_ee.exits.criteria.frames`, hypotheses and successive exits in
:mod:`~speechbrain_ee.exits.criteria.sequences`; what waits until exits agree is in
:mod:`~speechbrain_ee.exits.criteria.patience`, what looks at an attention
decoder's beam in :mod:`~speechbrain_ee.exits.criteria.attention`, what ignores
the utterance in :mod:`~speechbrain_ee.exits.criteria.baselines`. To add a measure or a criterion, write
one decorated function: the evaluation then records it in every trace, and
every report shows it.

Rules that all follow (the baselines aside): padding frames do not count; a
batch changes nothing; the score of an exit does not depend on later exits;
without a frame, or where an exit emits blanks alone, there is no evidence of
readiness, and the least ready value is returned. Early exits are sure of
their blanks before they have learnt anything; the formulas of the literature
would stop there.

Authors
 * The speechbrain-ee contributors 2026
"""

from speechbrain_ee.exits.criteria import (
    attention,
    baselines,
    frames,
    learned,
    nbest,
    patience,
    plausibility,
    sequences,
    zscores,
)
from speechbrain_ee.exits.criteria.criterion import Criterion, Measure
from speechbrain_ee.exits.criteria.measuring import measure_all
from speechbrain_ee.exits.criteria.registry import (
    criterion,
    criterion_names,
    get_criterion,
    get_measure,
    measure,
    measure_names,
)

__all__ = [
    "Criterion",
    "Measure",
    "attention",
    "baselines",
    "criterion",
    "criterion_names",
    "frames",
    "get_criterion",
    "get_measure",
    "learned",
    "measure",
    "measure_all",
    "measure_names",
    "nbest",
    "patience",
    "plausibility",
    "sequences",
    "zscores",
]
