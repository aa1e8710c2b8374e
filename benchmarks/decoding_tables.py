"""Markdown tables of what decodings.py found.

Authors
 * The speechbrain-ee contributors 2026
"""

from typing import Any

SHOWN = ("equal_wer", "plus_5")


def exit_tables(runs: dict[str, dict[str, Any]]) -> list[str]:
    """Word error rates of all runs side by side, and their MACs."""
    head, rule, first = "| layer", "|---", next(iter(runs.values()))
    tables = {"WER %": [], "GMAC of decoding / of all": []}
    for name, run in runs.items():
        columns = ["M parameters", *run["exits"]]
        head += "".join(f" | {name}: {column}" for column in columns)
        rule += "|---" * len(columns)
    for place, layer in enumerate(first["exit_layers"]):
        lines = dict.fromkeys(tables, f"| {layer}")
        for run in runs.values():
            counts = run["parameters"]["by_exit"]
            count = f" | {counts[place] / 1e6:.2f}" if counts else " | "
            cells = [rows[place] for rows in run["exits"].values()]
            wers, macs = lines
            lines[wers] += count + "".join(f" | {c['wer']:.2f}" for c in cells)
            lines[macs] += count + "".join(
                f" | {giga(c['decoding_macs'])} / {giga(c['macs'])}"
                for c in cells
            )
        for title, line in lines.items():
            tables[title].append(f"{line} |")
    return [
        "\n".join([f"{title}\n", f"{head} |", f"{rule}|", *lines])
        for title, lines in tables.items()
    ]


def test_table(found: dict[str, dict[str, Any]]) -> str:
    """The bootstraps as a Markdown table."""
    lines = [
        "| last exit | WER % | difference, 95 % interval | |",
        "|---" * 4 + "|",
    ]
    for name, row in found.items():
        (first, second), (low, high) = row["wers"], row["interval_95"]
        lines.append(
            f"| {name} | {first:.2f}, {second:.2f} | {row['difference']:+.2f} "
            f"[{low:+.2f}, {high:+.2f}] | {row['answer']} |"
        )
    return "\n".join(lines)


def selection_table(name: str, found: dict[str, Any]) -> str:
    """Layers and MACs by criterion, as Markdown."""
    last = found["last_exit"]
    lines = [
        f"{name}, {found['decoding']}: last exit {last['layers']:g} layers, "
        f"{giga(last['macs'])} GMAC, WER {last['wer']:.2f} %\n",
        "| evidence | criterion | layers, same WER | GMAC | layers, +5 % "
        "| GMAC | with dev's threshold: layers | GMAC | WER over last |",
        "|---" * 9 + "|",
    ]
    on_dev = {one["criterion"]: one for one in found["policies"]}
    for label, row in found["rows"].items():
        line = f"| {row.get('evidence', '')} | {label} "
        for level in (row[level] for level in SHOWN):
            line += "| | " if level is None else cells(level)
        one = on_dev.get(label)
        above = one and one["above_last_percent"]
        line += cells(one) if one else "| | "
        lines.append(line + ("| |" if above is None else f"| {above:+.1f} % |"))
    return "\n".join(lines)


def cells(row: dict[str, Any]) -> str:
    """Layers and MACs of a point as table cells."""
    return f"| {row['layers']:.2f} | {giga(row['macs'])} "


def giga(macs: float | None) -> str:
    """MACs in units of 10^9."""
    return "" if macs is None else f"{macs / 1e9:.3f}"
