"""Overthinking as rows and tables, for files, console and page.

Authors
 * The speechbrain-ee contributors 2026
"""

from speechbrain_ee.evaluation.estimate import Estimate, signed
from speechbrain_ee.evaluation.labels import label, number
from speechbrain_ee.evaluation.overthinking import (
    OverthinkingStudy,
    SetOverthinking,
)
from speechbrain_ee.evaluation.rows import Row

Table = list[list[str]]


def overthinking_rows(study: OverthinkingStudy) -> list[Row]:
    """One row per test set.

    Arguments
    ---------
    study : OverthinkingStudy
        The study.

    Returns
    -------
    list of dict
        Rates and shares in percent, differences in points.
    """
    rows: list[Row] = []
    for each in study.sets.values():
        best = each.exits[each.best_exit - 1]
        rows.append(
            {
                "set": each.key,
                "in_domain": each.key == study.in_domain,
                "utterances": each.utterances,
                "words": each.words,
                "wer_last": each.exits[-1].wer,
                "wer_oracle": each.wer_oracle,
                **_three("overthought", each.share, 100),
                "errors_added": each.errors,
                "errors_added_share": 100 * each.errors_share,
                **_three("points_added", each.points),
                **_three("points_above_domain", each.points_above_domain),
                "oracle_layer": each.best_layer,
                "best_exit": best.exit,
                "best_exit_layer": best.layer,
                "best_exit_wer": best.wer,
                **_three("best_exit_above_last", best.above_last),
            }
        )
    return rows


def threshold_rows(study: OverthinkingStudy) -> list[Row]:
    """One row per test set and criterion.

    Arguments
    ---------
    study : OverthinkingStudy
        The study.

    Returns
    -------
    list of dict
        What the domain's threshold does on the set; rates in percent.
    """
    return [
        {
            "set": each.key,
            "in_domain": each.key == study.in_domain,
            "criterion": one.criterion,
            "threshold": one.threshold,
            "layers_in_domain": one.domain_layer,
            "layers": one.avg_layer,
            "layers_own_threshold": one.own_layer,
            "avg_macs": one.avg_macs,
            "wer": one.wer,
            **_three("above_last", one.above_last),
            "excess": one.excess,
            "score_distance": one.distance,
            "shifted": one.warning is not None,
        }
        for each in study.sets.values()
        for one in each.carried
    ]


def set_table(study: OverthinkingStudy) -> Table:
    """What going on costs, one row per test set.

    Arguments
    ---------
    study : OverthinkingStudy
        The study.

    Returns
    -------
    list of list of str
        The first row is the heading.
    """
    table = [
        ["test set", "WER %: last exit", "oracle"]
        + ["earlier is better: % of utterances", "95 % interval"]
        + ["going on adds: errors", "points", "95 % interval"]
    ]
    for each in study.sets.values():
        table.append(
            [
                each.key,
                number(each.exits[-1].wer),
                number(each.wer_oracle),
                f"{100 * each.share.value:.1f}",
                f"{100 * each.share.low:.1f} to {100 * each.share.high:.1f}",
                str(each.errors),
                number(each.points.value),
                each.points.ends(""),
            ]
        )
    return table


def fixed_table(study: OverthinkingStudy) -> Table:
    """The best fixed exit of every set, and the domain's, against the last.

    Arguments
    ---------
    study : OverthinkingStudy
        The study.

    Returns
    -------
    list of list of str
        The first row is the heading; differences are points.
    """
    table = [
        ["test set", "best fixed exit: layer", "WER %", "against last"]
        + ["95 % interval"]
        + ["the domain's: layer", "against last", "95 % interval"]
    ]
    for each in study.sets.values():
        best = each.exits[each.best_exit - 1]
        row = [each.key, str(best.layer), number(best.wer)]
        row += _against(each, each.best_exit)
        own = each.key == study.in_domain or each.domain_exit is None
        if own:
            row += ["", "", ""]
        else:
            row.append(str(each.exits[each.domain_exit - 1].layer))
            row += _against(each, each.domain_exit)
        table.append(row)
    return table


def exit_comparison_table(each: SetOverthinking) -> Table:
    """Every fixed exit of a test set against the last one.

    Arguments
    ---------
    each : SetOverthinking
        A test set.

    Returns
    -------
    list of list of str
        The first row is the heading; the best exit has a star.
    """
    table = [
        ["layer", "WER %", "against last: points", "95 % interval"]
        + ["utterances %: better than last", "worse", "best exit here"]
    ]
    for one in each.exits:
        star = " *" if one.exit == each.best_exit else ""
        table.append(
            [
                f"{one.layer}{star}",
                number(one.wer),
                *_against(each, one.exit),
                f"{100 * one.better_share:.1f}",
                f"{100 * one.worse_share:.1f}",
                f"{100 * one.best_share:.1f}",
            ]
        )
    return table


def group_table(each: SetOverthinking) -> Table:
    """Overthinking by length and by difficulty.

    Arguments
    ---------
    each : SetOverthinking
        A test set.

    Returns
    -------
    list of list of str
        The first row is the heading.
    """
    table = [
        ["part", "utterances", "WER %: last exit", "oracle"]
        + ["going on: hurts % of utterances", "adds points"]
        + ["best layer: average"]
    ]
    for group in each.groups:
        table.append(
            [
                f"{group.kind}: {group.name}",
                str(group.utterances),
                number(group.wer_last),
                number(group.wer_oracle),
                f"{100 * group.share:.1f}",
                number(group.points),
                number(group.best_layer),
            ]
        )
    return table


def carried_table(each: SetOverthinking) -> Table:
    """What the domain's thresholds do on a test set.

    Arguments
    ---------
    each : SetOverthinking
        A test set.

    Returns
    -------
    list of list of str
        The first row is the heading; without further rows if no threshold
        could be carried.
    """
    table = [
        ["criterion", "layers: in domain", "here", "own"]
        + ["above last exit: %", "points, 95 %", "scores: shift"]
    ]
    for one in each.carried:
        shift = "*" if one.warning else ""
        table.append(
            [
                label(one.criterion),
                number(one.domain_layer),
                number(one.avg_layer),
                number(one.own_layer),
                "" if one.excess is None else signed(one.excess, decimals=1),
                one.above_last.ends(),
                f"{one.distance:.2f}{shift}",
            ]
        )
    return table


def _against(each: SetOverthinking, exit: int) -> list[str]:
    """Difference to the last exit and its interval."""
    if exit == len(each.exits):
        return ["", ""]
    above = each.exits[exit - 1].above_last
    return [signed(above.value), above.ends()]


def _three(
    name: str, estimate: Estimate | None, factor: float = 1.0
) -> dict[str, float | None]:
    """Value and interval as three columns."""
    if estimate is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    return {
        name: factor * estimate.value,
        f"{name}_low": factor * estimate.low,
        f"{name}_high": factor * estimate.high,
    }
