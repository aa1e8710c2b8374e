"""A learned selector for the model that ends at an exit.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import replace

from speechbrain_ee.exits.selector.learned import LearnedSelector


def truncated_selector(
    selector: LearnedSelector, exits: int
) -> LearnedSelector:
    """A selector that expects nothing of the exits that are gone.

    Arguments
    ---------
    selector : LearnedSelector
        Of the whole model.
    exits : int
        How many exits stay, at least 2.

    Returns
    -------
    LearnedSelector
        Of the exits that stay it expects what it expected before.
    """
    early = selector.ridges[: exits - 1]
    return replace(
        selector,
        exit_layers=selector.exit_layers[:exits],
        ridges=tuple(
            ridge.first(exits - exit_) for exit_, ridge in enumerate(early, 1)
        ),
        steps=selector.steps[: exits - 1],
    )
