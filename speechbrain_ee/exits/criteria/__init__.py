"""Exit criteria: what says that an exit is good enough.

==============  =========================================================
module          what it holds
==============  =========================================================
``registry``    how to add a measure or criterion, and how to find one
``view``        what a measure may look at
``frames``      over the frames of an exit: entropies, probabilities
``successive``  hypotheses, distances between exits, patience
``beams``       CTC's N best, and what an attention decoder found
``text``        character n-grams: how plausible a transcript reads
``combined``    z-scores, the learned selector, baselines
==============  =========================================================

To add a measure or a criterion, write one decorated function, in one of these
modules, in a new one of this folder, or in a module of your own (see
:func:`~speechbrain_ee.exits.criteria.registry.load_criteria`): the evaluation
then records it in every trace, and every report shows it.

Rules that all follow (the baselines aside): padding frames do not count; a
batch changes nothing; the score of an exit does not depend on later exits;
without a frame, or where an exit emits blanks alone, there is no evidence of
readiness, and the least ready value is returned. Early exits are sure of
their blanks before they have learnt anything; the formulas of the literature
would stop there.

Authors
 * The speechbrain-ee contributors 2026
"""

from speechbrain_ee.exits.criteria.registry import (
    Criterion,
    Measure,
    criterion,
    criterion_names,
    get_criterion,
    get_measure,
    load_criteria,
    measure,
    measure_all,
    measure_names,
)

__all__ = [
    "Criterion",
    "Measure",
    "criterion",
    "criterion_names",
    "get_criterion",
    "get_measure",
    "load_criteria",
    "measure",
    "measure_all",
    "measure_names",
]
