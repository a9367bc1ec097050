"""Functions that commands share: settings, errors in one sentence, moments, tables, progress."""

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from connectors.cli.sentences import fail
from connectors.operations.csv_table import DELIMITERS
from connectors.telemetry.printable import shown, shown_json
from schemas.errors import Rejected
from schemas.moments import MOMENT_FORM, SECOND_US, parse_us

_AGO = re.compile(r"^([0-9]{1,30})([smhd])$")
_WIDE = 240
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
#: The longest duration, days. With a much longer one a moment would be before the year 1, which has no date.
_MOST_DAYS = 36_500


def checked_delimiter(sign: str) -> str:
    """Return the delimiter if it is valid or `""`; otherwise end the command."""
    if sign and sign not in DELIMITERS:
        fail(f"--delimiter: {sign!r} is not possible. Give ',', ';', '|' or tab.", 2)
    return sign


def duration_s(text: str, option: str, least_s: int = 0) -> int:
    """Return the seconds of `90s`, `15m`, `24h` or `7d`; any other text, or less than `least_s`, ends the command. Args:
    option: it is named then, `--overlap`.
    """
    long = _AGO.match(text.strip())
    if long is None:
        fail(f"{option}: {text!r} is not a duration. Give a number with s, m, h or d, for example 24h.", 2)
    seconds = int(long[1]) * _UNITS[long[2]]
    if seconds > _MOST_DAYS * _UNITS["d"]:
        fail(f"{option}: this duration is too long. Give at most {_MOST_DAYS}d, for example 24h.", 2)
    if seconds < least_s:
        fail(f"{option}: {text} is no time at all. Give at least {least_s}s, for example 90d.", 2)
    return seconds


def moment_us(text: str, option: str) -> int:
    """Return microseconds since 1970 UTC of a text: ISO 8601, seconds since 1970, or an age: `90s`, `15m`, `24h`, `7d`.
    An age that reaches back before 1970 is 0, because Kafka gives negative times a special meaning: -1 is the end.

    Any other text ends the command with a sentence that names the `option`, for example `--from`.
    """
    if _AGO.match(text.strip()):
        return max(0, time.time_ns() // 1000 - duration_s(text, option) * SECOND_US)
    try:
        return parse_us(text)
    except Rejected as error:
        why = error.detail.removesuffix(f"expected {MOMENT_FORM}").removesuffix(": ")
        fail(
            f"{option}: {text!r} is not a moment{f': {why}' if why else ''}. Give ISO 8601, for example 2026-11-20T10:03Z, "
            "seconds since 1970, or how long ago, for example 24h.",
            2,
        )


def span_us(since: str, until: str, options: tuple[str, str] = ("--from", "--to")) -> tuple[int, int]:
    """Return `moment_us` of the ends of a span of time. An empty span ends the command: nothing in it would look like success."""
    begin, end = moment_us(since, options[0]), moment_us(until, options[1])
    if begin >= end:
        fail(f"{options[0]} {since} is not before {options[1]} {until}. Give two moments, the earlier one first.", 2)
    return begin, end


def moment_ms(text: str | None, option: str) -> int | None:
    """Return `moment_us` in milliseconds; None stays None."""
    return None if text is None else moment_us(text, option) // 1000


def say(answer: Any, *, as_json: bool, table: Callable[[], Table | str]) -> None:
    """Print the answer as one JSON object, or otherwise as a table."""
    if as_json:
        typer.echo(_printable(shown_json(msgspec.json.encode(answer).decode())))
        return
    made = table()
    # A pipe has no width, and `grep` needs whole lines. Markup and emoji codes in a customer id are printed as they are.
    width = None if sys.stdout.isatty() else _WIDE
    console = Console(width=width, soft_wrap=True, markup=False, emoji=False, highlight=False)
    console.print(shown(made, lines=True) if isinstance(made, str) else made)


def _printable(text: str) -> str:
    """Return JSON that the terminal can show; characters that are not in its encoding are escaped."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return re.sub(r"[^\x00-\x7f]", lambda found: json.dumps(found[0])[1:-1], text)
    return text


def table_of(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> Table:
    """Return a plain table, with numbers aligned to the right."""
    caption = Text(shown(title, lines=True)) if title else None
    table = Table(title=caption, title_justify="left", box=None, header_style="bold")
    for number, name in enumerate(columns):
        right = bool(rows) and not isinstance(rows[0][number], str)
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(shown(str(cell))) for cell in row))
    return table


def table_of_lines(lines: Sequence[Mapping[str, object]], title: str = "") -> Table:
    """Return a table of at least one line; its columns are the members of the lines. None is an empty cell."""
    rows = [["" if cell is None else cell for cell in line.values()] for line in lines]
    return table_of(tuple(lines[0]), rows, title)


@contextmanager
def progress(what: str, total: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Show a progress bar with count, rate and remaining time on stderr, if stderr is a terminal.

    Args:
        total: number of steps, 0 = not known.
        quiet: show no bar.

    Yields:
        A function to call with the number of steps that were done.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda _step: None
        return
    columns = (TextColumn(shown(what), markup=False), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda step: bar.update(task, advance=step)


class _Rate(ProgressColumn):
    """Steps a second."""

    def render(self, task: Task) -> Text:
        """Return the current rate, or the final one."""
        return Text(f"{task.finished_speed or task.speed or 0:,.0f}/s")
