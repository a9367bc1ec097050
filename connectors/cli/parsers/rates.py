"""Words, options and help of `meterbridge rates`."""

from pathlib import Path
from typing import Annotated

import typer

from connectors.cli.parsers.deferred import deferred
from connectors.cli.parsers.options import AsJson, Comment, group

rates = group("The prices of calls: versions of the rate card (docs/rates.md).")

CardFile = Annotated[Path, typer.Argument(help="A rate card: TOML, with amounts as text.", metavar="FILE")]
Since = Annotated[str, typer.Option("--from", help="From this moment on: calls that ended then or later.")]
Until = Annotated[str, typer.Option("--to", help="Up to this moment, which is not included.")]


@rates.command(epilog="Example: meterbridge rates check rates-2026-12.toml")
@deferred(reads_settings=False)
def check(file: CardFile, as_json: AsJson = False) -> None:
    """Check a rate card and describe it in words. Nothing is written."""


@rates.command(epilog="Example: meterbridge rates put rates-2026-12.toml --comment 'prices of December'")
@deferred()
def put(
    file: CardFile,
    *,
    comment: Comment,
    back_date: Annotated[
        bool,
        typer.Option(
            "--back-date",
            help="Accept a version that begins in the past. Calls that are already counted keep their price.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a version of the rate card into force, beginning at its `effective_from`. The audit log keeps it."""


@rates.command(epilog="Example: meterbridge rates show --at 2026-12-01T00:00:00Z")
@deferred()
def show(
    at: Annotated[str, typer.Option(help="Show the version in force at this moment, with its prices.")] = "",
    *,
    as_file: Annotated[
        bool, typer.Option("--as-file", help="Print the version in force, now or --at, as a file to copy and change.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the versions of the rate card, or show the version that is in force at a moment."""


@rates.command("test", epilog="Example: meterbridge rates test rates-2026-12.toml --from 2026-11-01 --to 2026-12-01")
@deferred()
def try_on(file: CardFile, since: Since, until: Until, as_json: AsJson = False) -> None:
    """Price the calls of the usage log by a rate card, and print the differences for each customer. Needs Postgres."""


@rates.command(epilog="Example: meterbridge rates compare model_prices.json --from 24h --to 0s --bound 0.01")
@deferred()
def compare(
    prices: Annotated[Path, typer.Argument(help="LiteLLM's price list, as JSON.", metavar="PRICES.json")],
    since: Since,
    until: Until,
    bound: Annotated[
        str, typer.Option(help="Accepted difference, as a share of the listed price: 0.01 is 1 %.")
    ] = "0.01",
    as_json: AsJson = False,
) -> None:
    """Compare the costs in the usage log with LiteLLM's price list, and list calls that differ. Needs Postgres."""
