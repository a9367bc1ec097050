"""Words, options and help of `meterbridge export`."""

from pathlib import Path
from typing import Annotated

import typer

from connectors.cli.parsers.deferred import deferred
from connectors.cli.parsers.options import AsJson, group

export = group("Usage for other programs. Needs Postgres.")


@export.command(epilog="Example: meterbridge export focus --month 2026-11 --out focus-2026-11.csv")
@deferred()
def focus(
    month: Annotated[str, typer.Option(help="The month in UTC, like 2026-11, by the ends of calls.")],
    out: Annotated[
        Path | None, typer.Option(help="The file to write. Default: standard output.", show_default=False)
    ] = None,
    issuer: Annotated[str, typer.Option(help="Who bills. Default: DEPLOYMENT_NAME.")] = "",
    as_json: AsJson = False,
) -> None:
    """Write the usage of a month as CSV in the form FOCUS 1.2, by day, org and model; --json prints only its sums."""
