"""The charts of a comparison as SVG text. Used by plots.py.

Colours are classes, so that one picture serves light and dark pages; nothing refers to anything outside of it.
"""

import math
from html import escape

WIDTH = 880
CHARACTER = 6.3  # the width of one, about, at 11 pixels

# Of each peer: its class; any beyond the four of our own choice take the others in turn.
FIXED = {"balancer": "c0", "haproxy": "c1", "nginx": "c2", "nat": "c3"}
OTHERS = ["c4", "c5", "c6"]

LIGHT = ["#2a6fc9", "#d4691e", "#2b8a5f", "#7d838c", "#8450c4", "#c43f77", "#8c7a14"]
DARK = ["#4089dd", "#d27a42", "#3a9d74", "#868d96", "#9a70d3", "#cf6694", "#a8952f"]


def _rules(colours, ink, faint, line, paper):
    parts = [f".c{n} {{ fill: {c}; }} .s{n} {{ stroke: {c}; fill: none; }}" for n, c in enumerate(colours)]
    parts += [
        f".ink {{ fill: {ink}; }} .faint {{ fill: {faint}; }} .grid {{ stroke: {line}; }}",
        f".axis, .range {{ stroke: {ink}; }} .paper {{ fill: {paper}; }}",
    ]
    return "\n".join(parts)


STYLE = (
    "text { font: 11px system-ui, 'DejaVu Sans', sans-serif; } .title { font-weight: bold; font-size: 12px; }\n"
    + _rules(LIGHT, "#1d2126", "#5b626b", "#e1e4e8", "#ffffff")
    + "\n@media (prefers-color-scheme: dark) {\n"
    + _rules(DARK, "#e6e9ed", "#9fa6b0", "#343a42", "#15181c")
    + "\n}"
)


def classes(peers):
    """The number of each peer's colour."""
    free = iter(OTHERS * len(peers))
    return {peer: (FIXED[peer] if peer in FIXED else next(free))[1:] for peer in peers}


def figure(value):
    """Three digits that mean something, thousands set apart."""
    if value >= 1000:
        return f"{value:,.0f}".replace(",", "\u202f")
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}"


def text(x, y, what, kind="ink", anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(what)}</text>'


def line(x1, y1, x2, y2, kind):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}" />'


def picture(body, height, label):
    """One SVG document."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}" '
        f'role="img" aria-label="{escape(label)}">\n<style>\n{STYLE}\n</style>\n'
        f'<rect class="paper" width="100%" height="100%" />\n' + "\n".join(body) + "\n</svg>\n"
    )


def grid(panels, columns, gap, top=0):
    """Puts panels, each (height, function of its left edge, top and width), in rows; returns their parts and the whole height."""
    width = (WIDTH - gap * (columns + 1)) / columns
    parts, y = [], top + gap
    for at in range(0, len(panels), columns):
        row = panels[at : at + columns]
        for column, (_, draw) in enumerate(row):
            parts += draw(gap + column * (width + gap), y, width)
        y += max(height for height, _ in row) + gap
    return parts, y


def bars(title, unit, rows):
    """A panel of bars: each row has a name, a colour, and a median with its lowest and highest."""
    step, bar = 22, 14

    def draw(left, top, width):
        parts = [text(left, top + 12, title, "title ink"), text(left + width, top + 12, unit, "faint", "end")]
        names = max(len(name) for name, *_ in rows) * CHARACTER + 8
        labels = max(len(figure(middle)) for _, _, middle, _, _ in rows) * CHARACTER + 10
        most = max(high for *_, high in rows) or 1
        scale = (width - names - labels) / most
        start = left + names
        for number, (name, colour, middle, low, high) in enumerate(rows):
            y = top + 22 + number * step
            parts.append(text(start - 6, y + 11, name, "ink", "end"))
            parts.append(
                f'<rect x="{start:.1f}" y="{y}" width="{max(middle * scale, 1):.1f}" height="{bar}" rx="2" class="c{colour}">'
                f"<title>{escape(name)}: {figure(middle)} {escape(unit)} ({figure(low)} to {figure(high)})</title></rect>"
            )
            if high > low:
                middle_y = y + bar / 2
                parts.append(line(start + low * scale, middle_y, start + high * scale, middle_y, "range"))
                for end in (low, high):
                    parts.append(line(start + end * scale, middle_y - 4, start + end * scale, middle_y + 4, "range"))
            parts.append(text(start + high * scale + 6, y + 11, figure(middle)))
        return parts

    return 22 + len(rows) * step, draw


def legend(left, top, width, entries):
    """Names beside their colours, in as many lines as they need; returns the parts and the height."""
    parts, x, y = [], left, top
    for name, colour in entries:
        needed = 24 + len(name) * CHARACTER + 14
        if x + needed > left + width and x > left:
            x, y = left, y + 16
        parts.append(f'<g stroke-width="3">{line(x, y + 6, x + 18, y + 6, f"s{colour}")}</g>')
        parts.append(text(x + 24, y + 10, name))
        x += needed
    return parts, y + 16 - top


def _even_ticks(most):
    raw = most / 4
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * unit for unit in (1, 2, 2.5, 5, 10) if power * unit >= raw)
    return [step * number for number in range(int(most / step + 1e-9) + 2)]


def _log_ticks(low, high):
    """From below the lowest to above the highest in steps of 1, 2 and 5; where those are many, without the 2 and 5 between."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    ticks = [step * 10**power for power in range(first, last + 1) for step in (1, 2, 5)]
    begin = max(tick for tick in ticks if tick <= low * (1 + 1e-9))
    end = min(tick for tick in ticks if tick >= high * (1 - 1e-9))
    ticks = [tick for tick in ticks if begin <= tick <= end]
    if len(ticks) <= 7:
        return ticks
    # A power of ten beside an end would stand too close to it.
    return [tick for tick in ticks if tick in (begin, end) or (math.log10(tick) % 1 == 0 and begin * 1.5 < tick < end / 1.5)]


def short(value):
    """A number on an axis."""
    if value >= 1000:
        return f"{value / 1000:g}k"
    return f"{value:g}"


def duration(microseconds):
    """A time on an axis."""
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if microseconds >= size:
            return f"{microseconds / size:g} {unit}"
    return f"{microseconds:g} µs"


def curves(title, unit, places, series, named=short, log=False, with_legend=True, below=""):
    """A panel of curves.

    places: (position from 0 to 1, label) of the marks below; series: (name, colour, points), each point a position, a median,
    its lowest and highest; named: how a value is written on the axis; below: what the marks are, under them.
    """
    plot = 170

    def draw(left, top, width):
        parts = [text(left, top + 12, title, "title ink"), text(left + width, top + 12, unit, "faint", "end")]
        top += 20
        if with_legend:
            names, used = legend(left, top, width, [(name, colour) for name, colour, _ in series])
            parts += names
            top += used
        top += 8
        values = [value for *_, points in series for point in points for value in point[1:]]
        ticks = _log_ticks(min(values), max(values)) if log else _even_ticks(max(values))
        margin = max(len(named(tick)) for tick in ticks) * CHARACTER + 8
        x0, x1 = left + margin, left + width - 14

        def across(position):
            return x0 + position * (x1 - x0)

        def up(value):
            if log:
                share = math.log(value / ticks[0]) / math.log(ticks[-1] / ticks[0])
            else:
                share = value / ticks[-1]
            return top + plot * (1 - share)

        for tick in ticks:
            parts += [line(x0, up(tick), x1, up(tick), "grid"), text(x0 - 6, up(tick) + 4, named(tick), "faint", "end")]
        parts.append(line(x0, top + plot, x1, top + plot, "axis"))
        for position, label in places:
            parts.append(text(across(position), top + plot + 16, label, "faint", "middle"))
        if below:
            parts.append(text((x0 + x1) / 2, top + plot + 31, below, "faint", "middle"))
        for name, colour, points in series:
            path = " ".join(f"{across(at):.1f},{up(middle):.1f}" for at, middle, _, _ in points)
            parts.append(f'<polyline points="{path}" class="s{colour}" stroke-width="2" stroke-linejoin="round" />')
            for at, middle, lowest, highest in points:
                if highest > lowest:
                    parts.append(line(across(at), up(lowest), across(at), up(highest), f"s{colour}"))
                parts.append(
                    f'<circle cx="{across(at):.1f}" cy="{up(middle):.1f}" r="3" class="c{colour}">'
                    f"<title>{escape(name)}: {figure(middle)} ({figure(lowest)} to {figure(highest)})</title></circle>"
                )
        return parts

    # The legend's lines are counted for half the picture's width.
    used = 0
    if with_legend:
        used = legend(0, 0, (WIDTH - 90) / 2, [(name, colour) for name, colour, _ in series])[1]
    return 28 + used + plot + (37 if below else 22), draw
