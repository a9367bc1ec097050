"""`meterbridge export`: usage for other programs."""

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path

from connectors.cli.base import say
from connectors.cli.running import one_sentence, settings_of_command
from connectors.cli.sentences import fail, print_error
from connectors.config.connections import postgres_url
from connectors.operations.focus_export import FocusTotals, export_focus
from schemas.plurals import numbered


def focus(month: str, out: Path | None, issuer: str, *, as_json: bool) -> None:
    """Run `meterbridge export focus`."""
    try:
        first = date.fromisoformat(f"{month}-01")
        _ = first + timedelta(days=31)  # there is no month after 9999-12
    except (ValueError, OverflowError):
        fail(f"--month: {month!r} is not a month. Give a year and a month, for example 2026-11.", 2)
    with one_sentence(OSError):
        settings = settings_of_command()
        url, biller = postgres_url(settings), issuer or settings.deployment_name

        def written(write: Callable[[str], object]) -> FocusTotals:
            return asyncio.run(export_focus(url, first, biller, write))

        if out is not None:
            totals = _into_file(out, written)
        else:
            totals = written((lambda _line: None) if as_json else sys.stdout.write)
    if not totals.rows:
        print_error(f"meterbridge: no call ended in {month}, UTC: the file has only its header.")
    answer = {"month": month, "out": None if out is None else str(out), **totals.as_object()}
    if as_json or out is not None:
        sentence = f"{numbered(totals.rows, 'row')} with {totals.as_object()['billed_usd']} USD in {out}."
        say(answer, as_json=as_json, table=lambda: sentence)


def _into_file(out: Path, written: Callable[[Callable[[str], object]], FocusTotals]) -> FocusTotals:
    """Write a new file and rename it to `out`, so that a failed run does not change the old file."""
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8", newline="") as file:
            totals = written(file.write)
        beside.replace(out)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(out)) from error  # the operator did not choose the other name
    finally:
        with suppress(FileNotFoundError):
            beside.unlink()
    return totals
