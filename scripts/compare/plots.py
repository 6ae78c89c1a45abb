"""The plots and the HTML report of a comparison, from the JSON that scripts/compare.sh writes.

Usage: plots.py RESULT.json [--html FILE] [--svg DIR]
"""

import argparse
import json
import math
import statistics
from html import escape
from pathlib import Path

import charts

PAGE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
body { background: #fff; color: #1d2126; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; }
th, td { padding: .3rem .6rem; text-align: left; border-bottom: 1px solid #e1e4e8; vertical-align: top; }
td { white-space: nowrap; } td.said { white-space: normal; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
.yes { color: #217a4d; font-weight: 600; } .no { color: #b3361b; font-weight: 600; } .note { color: #5b626b; }
svg { display: block; width: 100%; max-width: 920px; height: auto; } code { font-size: 12px; overflow-wrap: anywhere; }
@media (prefers-color-scheme: dark) {
  body { background: #15181c; color: #e6e9ed; } th, td { border-color: #343a42; }
  .yes { color: #62cf9a; } .no { color: #ff9478; } .note { color: #9fa6b0; }
}
"""


def spread(values):
    """Median, lowest and highest."""
    return statistics.median(values), min(values), max(values)


def measured(result, field):
    """By load and peer: the values of all rounds."""
    found = {}
    for row in result["measurements"]:
        if row[field] is not None:
            found.setdefault((row["load"], row["peer"]), []).append(row[field])
    return found


def bar_chart(result, field, unit_field, wanted, label):
    """A panel for each load, a bar for each peer; "" where nothing was measured."""
    values, colour = measured(result, field), charts.classes(result["peers"])
    panels = []
    for entry in result["summary"]:
        load = entry["load"]
        rows = [(peer, colour[peer], *spread(values[load, peer])) for peer in result["peers"] if (load, peer) in values]
        if rows and wanted(load):
            panels.append(charts.bars(wanted(load), entry[unit_field], rows))
    if not panels:
        return ""
    parts, height = charts.grid(panels, 2, 30)
    return charts.picture(parts, height, label)


def cost_chart(result):
    """What each peer's own processes cost."""
    return bar_chart(result, "cost", "unit", lambda load: "" if " at " in load else load, "Cost of each load by peer")


def machine_chart(result):
    """The CPU of the whole machine; a percentile of the same run says the same again."""

    def wanted(load):
        if "p99" in load or load == "idle":
            return ""
        return load.replace("rates p50 at", "rates at").replace("latency p50", "latency")

    return bar_chart(result, "machine", "machine_unit", wanted, "CPU of the whole machine by peer")


def percentile_chart(result):
    """A panel for each rate: latency over the percentiles, both axes logarithmic."""
    found, rates = {}, {}
    for row in result["percentiles"]:
        # What lies below the median says nothing about waiting.
        if row["percentile"] >= 50:
            found.setdefault((row["share"], row["peer"]), {}).setdefault(row["percentile"], []).append(row["µs"])
            rates[row["share"]] = row["rate"]
    if not found:
        return ""
    colour = charts.classes(result["peers"])
    marks = [50, 90, 99, 99.9, 99.99]

    def position(percentile):
        return math.log10(50 / (100 - percentile)) / math.log10(50 / 0.01)

    panels = []
    for share in sorted(rates):
        series = []
        for peer in result["peers"]:
            points = [(position(at), *spread(values)) for at, values in sorted(found.get((share, peer), {}).items())]
            if points:
                series.append((peer, colour[peer], points))
        title = f"{share} %: {charts.figure(rates[share])} requests/s"
        places = [(position(mark), f"p{mark:g}") for mark in marks]
        panels.append(charts.curves(title, "", places, series, charts.duration, log=True, with_legend=False))
    names, used = charts.legend(30, 16, charts.WIDTH - 60, [(peer, colour[peer]) for peer in result["peers"]])
    parts, height = charts.grid(panels, 2, 30, top=used)
    return charts.picture(names + parts, height, "Latency percentiles at constant rates")


def scaling_chart(result):
    """How balancer's cost grows, a panel for each question."""
    by_name = {entry["series"]: entry for entry in result["scaling"]}

    def panel(prefix, title, unit, below, share_of_first=False, log=False):
        chosen = [entry for name, entry in by_name.items() if name.split()[0] == prefix]
        if not chosen:
            return []
        steps = sorted({float(point["at"]) for entry in chosen for point in entry["points"]})
        # One step beside the other: 1 to 9,000 in tens, workers one by one.
        at = {step: number / max(len(steps) - 1, 1) for number, step in enumerate(steps)}
        series = []
        for number, entry in enumerate(chosen):
            first = entry["points"][0]["value"] if share_of_first else 1
            points = [
                (at[float(point["at"])], point["value"] / first, point["value_low"] / first, point["value_high"] / first)
                for point in entry["points"]
            ]
            series.append((entry["series"].split(" ", 1)[1].replace("-", " "), (0, 1, 2)[number % 3], points))
        places = [(at[step], charts.figure(step) if step >= 1000 else f"{step:g}") for step in steps]
        return [charts.curves(title, unit, places, series, log=log, below=below)]

    panels = panel("workers", "CPU by workers", "of one worker", "workers", share_of_first=True)
    panels += panel("sessions", "A request by open sessions", "µs CPU/request", "open sessions")
    panels += panel("backends", "A connection by backends", "µs CPU/connection", "backends")
    panels += panel("memory", "A session's memory by sessions", "resident bytes", "open sessions", log=True)
    if "reload" in by_name:
        said = {"none": "no reload", "continuous": "ten a second"}
        points = by_name["reload"]["points"]
        rows = [(said[point["at"]], 0, point["value"], point["value_low"], point["value_high"]) for point in points]
        panels.append(charts.bars("Connections during reloads", "connections/s", rows))
    if not panels:
        return ""
    parts, height = charts.grid(panels, 2, 30)
    return charts.picture(parts, height, "How balancer scales")


def number(value):
    """A figure of a table."""
    return f'<td class="number">{"-" if value is None else charts.figure(value)}</td>'


def rates(entry, peers):
    """What each peer carried, in the order of the table's columns."""
    if not entry["rate_unit"]:
        return "<td>-</td>"
    carried = (entry[peer]["rate"] for peer in peers)
    figures = " / ".join("-" if rate is None else charts.figure(rate) for rate in carried)
    return f"<td>{figures}<br><span class=\"note\">{escape(entry['rate_unit'])}</span></td>"


def ratio(entry, name, of="", target=None, met=None):
    """A ratio with its range, what it is taken of, its target, and in words and colour whether that is met."""
    if entry[name] is None:
        return "<td>-</td>"
    low, high = entry[name + "_low"], entry[name + "_high"]
    lines = [f"<b>{entry[name]:.3f}</b>{of}", f'<span class="note">{low:.3f} to {high:.3f}</span>']
    if target is not None:
        word = "yes" if met else "no"
        also = ", under 900 bytes" if entry.get("load") == "idle" else ""
        lines.append(f'<span class="note">at most {target:.2f}{also}:</span> <span class="{word}">{word}</span>')
    return f"<td>{'<br>'.join(lines)}</td>"


def table(head, rows):
    """A table that scrolls by itself where it is too wide."""
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f'<div class="wide"><table><tr>{names}</tr>' + "".join(f"<tr>{row}</tr>" for row in rows) + "</table></div>"


def comparison_table(result):
    """One row a load."""
    peers = result["peers"]
    keys = result["summary"][0]
    named = [peer for peer in peers if f"ratio to {peer}" in keys]
    head = ["load", *peers, "ratio to the best"] + [f"ratio to {name}" for name in named]
    head += ["whole machine against address translation"] if "nat" in peers else []
    head.append("rate: " + " / ".join(peers))
    rows = []
    for entry in result["summary"]:
        row = f"<td>{escape(entry['load'])}<br><span class=\"note\">{escape(entry['unit'])}</span></td>"
        row += "".join(number(entry[peer]["cost"]) for peer in peers)
        row += ratio(entry, "ratio", f" of {escape(entry['best'] or '')}", entry["target"], entry["met"])
        row += "".join(ratio(entry, f"ratio to {name}") for name in named)
        if "nat" in peers:
            row += ratio(entry, "machine_ratio", "", entry["machine_target"], entry["machine_met"])
        rows.append(row + rates(entry, peers))
    return table(head, rows)


def scaling_table(result):
    """One row a curve."""
    rows = []
    for entry in result["scaling"]:
        points = ", ".join(f"{point['at']}: {charts.figure(point['value'])}" for point in entry["points"])
        row = f"<td class=\"said\">{escape(entry['title'])}<br><span class=\"note\">{escape(entry['unit'])}</span></td>"
        row += f'<td class="said">{points}</td>'
        row += ratio(entry, "ratio", f" of {entry['compared']} to {entry['against']}", entry["target"], entry["met"])
        rows.append(row)
    return table(["what", "at: value", "ratio"], rows)


def page(result, pictures):
    """The whole report; the pictures share one style."""

    def inline(name):
        return pictures[name].replace(f"<style>\n{charts.STYLE}\n</style>\n", "")

    parts = ["<h1>What balancer costs</h1>"]
    if result["summary"]:
        parts.append(
            "<p>Cost is the CPU time of a balancer's own processes, or what the unit says. Ratios are taken round by round:"
            " the median, and the lowest to the highest. The best is HAProxy or nginx, whichever costs less.</p>"
        )
        parts.append(comparison_table(result))
    sections = [
        ("cost", "Cost", "Bars are medians of the rounds, lines their ranges. Less is better."),
        ("machine", "The whole machine", "Client, server and interrupts included. Address translation (nat) is the floor."),
        ("percentiles", "Latency at constant rates", "Sent when due. The rates are shares of the best peer's highest."),
        ("scaling", "How balancer scales", "Points are medians of the rounds, lines at them their ranges."),
    ]
    for name, title, note in sections:
        if name in pictures:
            parts.append(f'<h2>{title}</h2><p class="note">{note}</p>{inline(name)}')
    if result["scaling"]:
        parts.append(scaling_table(result))
    parts.append("<h2>How it was measured</h2>")
    said = result["about"].items()
    rows = [f'<td>{escape(name)}</td><td class="said"><code>{escape(what)}</code></td>' for name, what in said]
    parts.append(table(["", ""], rows))
    head = '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">\n<title>What balancer costs</title>'
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n<style>{PAGE}{charts.STYLE}</style>\n</head>\n<body>\n'
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def main():
    """Reads, draws, writes."""
    arguments = argparse.ArgumentParser(description="Draws the plots of a comparison.")
    arguments.add_argument("result", type=Path, help="the JSON of scripts/compare.sh")
    arguments.add_argument("--html", type=Path, help="where the report goes")
    arguments.add_argument("--svg", type=Path, help="the directory for the pictures")
    wanted = arguments.parse_args()
    result = json.loads(wanted.result.read_text(encoding="utf-8"))
    drawn = {
        "cost": cost_chart(result),
        "machine": machine_chart(result),
        "percentiles": percentile_chart(result),
        "scaling": scaling_chart(result),
    }
    pictures = {name: picture for name, picture in drawn.items() if picture}
    if wanted.svg:
        wanted.svg.mkdir(parents=True, exist_ok=True)
        for name, picture in pictures.items():
            (wanted.svg / f"{name}.svg").write_text(picture, encoding="utf-8")
    if wanted.html:
        wanted.html.write_text(page(result, pictures), encoding="utf-8")


if __name__ == "__main__":
    main()
