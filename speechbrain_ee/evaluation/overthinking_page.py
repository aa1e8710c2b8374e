"""The part of the page that is about overthinking.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from html import escape

from speechbrain_ee.evaluation.figures import figure_bytes
from speechbrain_ee.evaluation.markup import DASH, grouped, named
from speechbrain_ee.evaluation.overthinking import (
    OverthinkingStudy,
    SetOverthinking,
)
from speechbrain_ee.evaluation.overthinking_figure import draw_overthinking
from speechbrain_ee.evaluation.overthinking_summary import (
    CARRIED_NOTE,
    EXITS_NOTE,
    GROUPS_NOTE,
    overthinking_note,
    shift_note,
)
from speechbrain_ee.evaluation.overthinking_tables import (
    carried_table,
    exit_comparison_table,
    fixed_table,
    group_table,
    set_table,
)
from speechbrain_ee.evaluation.theme import for_page


def overthinking_section(study: OverthinkingStudy | None) -> str:
    """All about overthinking.

    Arguments
    ---------
    study : OverthinkingStudy, optional
        The study.

    Returns
    -------
    str
        HTML; empty without a study.
    """
    if study is None:
        return ""
    svg = figure_bytes(draw_overthinking(study), "svg").decode()
    sets = "".join(_set(study, each) for each in study.sets.values())
    return (
        f"<h2>Overthinking</h2>"
        f'<p class="soft">In domain: {escape(study.in_domain)}. An utterance '
        f"is overthought where an earlier exit makes strictly fewer errors "
        f"than the last. Intervals: 95 % of the bootstrap replicates of a "
        f"test set; differences are paired.</p>"
        f"<div class=scroll>{for_page(svg, 'overthinking')}"
        f"</div><p class=soft>Diamonds mark the best fixed exit of a set. In "
        f"the middle what an exit is above the last one, in percent of its "
        f"word error rate, with 95 % intervals; below the line the last exit "
        f"overthinks.</p>"
        f"<h3>What going on costs</h3>{_table(set_table(study))}"
        f"<h3>One exit for all utterances</h3>{_table(fixed_table(study))}"
        f'<p class="soft">Against the last exit, in points of the word error '
        f"rate. A best exit was chosen on the set it is shown for, which "
        f"flatters it; that of the domain was not. {_notes(study)}</p>{sets}"
    )


def _notes(study: OverthinkingStudy) -> str:
    """What the tables of the sets mean."""
    if not any(each.carried for each in study.others):
        return GROUPS_NOTE
    return (
        f"{GROUPS_NOTE} {CARRIED_NOTE} In bold where the last exit's word "
        f"error rate is missed by more than chance."
    )


def _set(study: OverthinkingStudy, each: SetOverthinking) -> str:
    text = (
        f"<h3>Overthinking on {escape(each.key)}</h3>"
        f"<p>{escape(overthinking_note(study, each.key))}</p>"
        f"<div class=side><div>{_table(exit_comparison_table(each))}"
        f"<p class=soft>{EXITS_NOTE}</p></div>"
        f"<div>{_table(group_table(each))}</div></div>"
    )
    if each.key != study.in_domain and each.carried:
        text += (
            f"<h3>Thresholds of {escape(study.in_domain)} on "
            f"{escape(each.key)}</h3>{_carried(each)}"
        )
    note = shift_note(study, each.key)
    return f"{text}<p class=warn>{escape(note)}</p>" if note else text


def _carried(each: SetOverthinking) -> str:
    heading, *texts = carried_table(each)
    rows = [
        [named(one.criterion), *_cells(row[1:])]
        for one, row in zip(each.carried, texts, strict=True)
    ]
    broken = ["lead" if o.above_last.positive else "" for o in each.carried]
    return grouped(heading, rows, broken)


def _table(texts: Sequence[Sequence[str]]) -> str:
    rows = ([escape(row[0]), *_cells(row[1:])] for row in texts[1:])
    return grouped(texts[0], rows)


def _cells(texts: Sequence[str]) -> list[str]:
    """Numbers with a minus sign, as those of the other tables."""
    return [escape(text).replace("-", "−") or DASH for text in texts]
