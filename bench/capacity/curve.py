"""A chart of a few lines as SVG text: two linear axes, points where something was measured, a name at each line's end."""

from collections.abc import Mapping, Sequence
from math import floor, log10
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 110, 40, 50
_COLOURS = ("#1f6feb", "#bf5700", "#2da44e", "#8250df")
_TICKS, _LINE = 4, 14

Points = Sequence[tuple[float, float]]


def chart(title: str, across: str, up: str, lines: Mapping[str, Points]) -> str:
    """The chart. Args: across, up: the axes' names with their units. Raises: ValueError: nothing was measured."""
    points = [point for line in lines.values() for point in line]
    if not points:
        raise ValueError("no points")
    right, top = (_round_up(max(point[axis] for point in points)) for axis in (0, 1))

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = _LEFT + point[0] / right * (_WIDTH - _LEFT - _RIGHT)
        y = _HEIGHT - _BOTTOM - point[1] / top * (_HEIGHT - _TOP - _BOTTOM)
        return round(x, 1), round(y, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        _text(_LEFT, 20, title, extra=' font-size="14"'),
        _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 12, across, "middle"),
        _text(_LEFT, _TOP - 6, up, "middle"),
    ]
    for number in range(_TICKS + 1):
        (x, low), (_, y) = place((right * number / _TICKS, 0)), place((0, top * number / _TICKS))
        parts += [
            f'<path d="M{_LEFT} {y}H{_WIDTH - _RIGHT}" stroke="#ddd"/>',
            _text(_LEFT - 6, y + 4, _short(top * number / _TICKS), "end"),
            _text(x, low + 16, _short(right * number / _TICKS), "middle"),
        ]
    ends: list[tuple[float, float, str, str]] = []
    for colour, (name, line) in zip(_COLOURS, lines.items(), strict=False):
        places = [place(point) for point in sorted(line)]
        path = "L".join(f"{x} {y}" for x, y in places)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in places]
        ends.append((places[-1][1], places[-1][0], name, colour))
    lowest = 0.0
    for y, x, name, colour in sorted(ends):
        lowest = max(y + 4, lowest + _LINE)  # names of lines that end together are below each other
        parts.append(_text(x + 8, lowest, name, extra=f' fill="{colour}"'))
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, words: str, anchor: str = "start", extra: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{extra}>{escape(words)}</text>'


def _round_up(value: float) -> float:
    """The next of some round numbers times a power of ten."""
    power = 10.0 ** floor(log10(value)) if value > 0 else 1.0
    return next(step * power for step in (1, 1.2, 1.6, 2, 3, 4, 6, 8, 10) if step * power >= value)


def _short(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
