"""Plots as plain SVG: lines over two axes, and strips of bars over one. They follow the reader's light or dark scheme.

Nothing is known here of what is drawn. A plot is a string, to be written to a file as it is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 800, 420
LEFT, RIGHT, TOP, BOTTOM = 76, 24, 74, 54
STRIP_HEIGHT, STRIP_GAP = 84, 28
BARS_MARGIN_PX = 0.2

COLOURS = ("#2f6fde", "#d9488a", "#e08a00", "#3a9e5f", "#8a63d2", "#7a7f87")
_STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #24292f } .title { font-size: 16px; font-weight: 600 } .small { font-size: 12px; fill: #656d76 }
.grid { stroke: #d0d7de; stroke-width: 1 } .paper { fill: #ffffff } .line { fill: none; stroke-width: 2; stroke-linejoin: round }
.mark { stroke: #24292f; stroke-width: 1; stroke-dasharray: 4 3 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .small { fill: #9198a1 } .grid { stroke: #30363d } .paper { fill: #0d1117 } .mark { stroke: #e6edf3 }
}
</style>"""


@dataclass(frozen=True)
class Point:
    """One point of a line.

    :param low: where a bar through it begins, when it has one; with ``high``, where that ends.
    """

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Axis:
    """Where values stand along one side of a plot.

    :param marks: values and what is written beside them.
    :param logarithmic: equal ratios take equal room; ``low`` must be above zero then, and what is below is drawn there.
    """

    label: str
    low: float
    high: float
    marks: Sequence[tuple[float, str]]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Where a value stands, from 0 to 1."""
        inside = min(max(value, self.low), self.high)
        if self.logarithmic:
            return math.log(inside / self.low) / math.log(self.high / self.low)
        return (inside - self.low) / (self.high - self.low)


def linear(label: str, high: float, low: float = 0.0) -> Axis:
    """An axis from ``low`` to a round value above ``high``, with about five marks."""
    rough = max(high - low, 1e-9) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    count = math.ceil((high - low) / step - 1e-9)
    return Axis(label, low, low + count * step, [(low + number * step, f"{low + number * step:,.10g}") for number in range(count + 1)])


def logarithmic(label: str, low: float, high: float, base: int = 10) -> Axis:
    """An axis from the power of ``base`` below ``low`` to the one above ``high``, with a mark at each."""
    first, last = math.floor(math.log(low, base) + 1e-9), math.ceil(math.log(high, base) - 1e-9)
    last = max(last, first + 1)
    marks = [(float(base) ** power, f"{float(base) ** power:,.10g}") for power in range(first, last + 1)]
    return Axis(label, marks[0][0], marks[-1][0], marks, logarithmic=True)


def lines(title: str, subtitle: str, x: Axis, y: Axis, series: Mapping[str, Sequence[Point]], *, dots: bool = True) -> str:
    """A plot of several lines, each with a colour of its own by its place in ``series``.

    :param dots: whether each point is marked.
    """
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    drawn = [*_head(title, subtitle, HEIGHT), *_legend(list(series))]
    for value, text in y.marks:
        at = TOP + height * (1 - y.share(value))
        drawn.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        drawn.append(f'<text class="small" x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{escape(text)}</text>')
    drawn += _bottom(x, TOP + height)
    drawn.append(f'<text class="small" transform="translate(18 {TOP + height / 2}) rotate(-90)" text-anchor="middle">{escape(y.label)}</text>')
    for number, points in enumerate(series.values()):
        colour = COLOURS[number % len(COLOURS)]
        placed = [(LEFT + width * x.share(one.x), TOP + height * (1 - y.share(one.y))) for one in points]
        path = " ".join(f"{across:.1f},{down:.1f}" for across, down in placed)
        drawn.append(f'<polyline class="line" stroke="{colour}" points="{path}"/>')
        for one, (across, down) in zip(points, placed, strict=True):
            if one.low is not None and one.high is not None:
                ends = [TOP + height * (1 - y.share(end)) for end in (one.low, one.high)]
                drawn.append(f'<line stroke="{colour}" x1="{across:.1f}" x2="{across:.1f}" y1="{ends[0]:.1f}" y2="{ends[1]:.1f}"/>')
            if dots:
                drawn.append(f'<circle fill="{colour}" cx="{across:.1f}" cy="{down:.1f}" r="3"/>')
    return _whole(drawn, HEIGHT)


def strips(title: str, subtitle: str, x: Axis, rows: Mapping[str, Sequence[tuple[float, float]]], *, top: float, bar: float, mark: float) -> str:
    """A strip of bars for each row, one below the other over the same axis.

    :param rows: where each bar begins and how high it is, by what is written above the strip.
    :param top: how much a whole strip is; what is higher is cut.
    :param bar: how wide one is, in units of the axis.
    :param mark: a value that a line in each strip shows.
    """
    width, bottom = WIDTH - LEFT - RIGHT, TOP - 20 + len(rows) * (STRIP_HEIGHT + STRIP_GAP)
    drawn = _head(title, subtitle, bottom + BOTTOM)
    thick = max(width * bar / (x.high - x.low) - BARS_MARGIN_PX, 0.3)
    for number, (name, bars) in enumerate(rows.items()):
        floor = TOP - 20 + number * (STRIP_HEIGHT + STRIP_GAP) + STRIP_HEIGHT + STRIP_GAP
        most = f"{top:,.4g}" + ("+" if any(value > top for _, value in bars) else "")
        path = "".join(
            f"M{LEFT + width * x.share(at):.1f} {floor}v{-STRIP_HEIGHT * min(value / top, 1):.1f}h{thick:.1f}V{floor}z"
            for at, value in bars
            if value > 0 and x.low <= at < x.high
        )
        drawn.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>')
        drawn.append(f'<path fill="{COLOURS[number % len(COLOURS)]}" d="{path}"/>')
        drawn.append(f'<path class="mark" d="M{LEFT + width * x.share(mark):.1f} {floor}v{-STRIP_HEIGHT}"/>')
        drawn.append(f'<text x="{LEFT}" y="{floor - STRIP_HEIGHT - 6}">{escape(name)}</text>')
        drawn.append(f'<text class="small" x="{LEFT - 8}" y="{floor - STRIP_HEIGHT + 9}" text-anchor="end">{most}</text>')
        drawn.append(f'<text class="small" x="{LEFT - 8}" y="{floor}" text-anchor="end">0</text>')
    drawn += _bottom(x, bottom)
    return _whole(drawn, bottom + BOTTOM)


def _head(title: str, subtitle: str, height: float) -> list[str]:
    return [
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>',
        f'<text class="title" x="{LEFT}" y="26">{escape(title)}</text>',
        f'<text class="small" x="{LEFT}" y="44">{escape(subtitle)}</text>',
    ]


def _legend(names: list[str]) -> list[str]:
    drawn, across = [], float(LEFT)
    for number, name in enumerate(names):
        drawn.append(f'<rect fill="{COLOURS[number % len(COLOURS)]}" x="{across}" y="54" width="12" height="4" rx="2"/>')
        drawn.append(f'<text x="{across + 18}" y="61">{escape(name)}</text>')
        across += 44 + 7.2 * len(name)
    return drawn


def _bottom(x: Axis, down: float) -> list[str]:
    width, drawn = WIDTH - LEFT - RIGHT, []
    for value, text in x.marks:
        at = LEFT + width * x.share(value)
        drawn.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{down}" y2="{down + 5}"/>')
        drawn.append(f'<text class="small" x="{at:.1f}" y="{down + 19}" text-anchor="middle">{escape(text)}</text>')
    return [*drawn, f'<text class="small" x="{LEFT + width / 2}" y="{down + 40}" text-anchor="middle">{escape(x.label)}</text>']


def _whole(drawn: list[str], height: float) -> str:
    start = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" role="img">'
    return "\n".join([start, _STYLE, *drawn, "</svg>", ""])
