"""Words, options and help of `meterbridge replay`."""

from pathlib import Path
from typing import Annotated

import typer

from connectors.cli.parsers.deferred import deferred
from connectors.cli.parsers.options import AsJson, Comment, Customer, DryRun


@deferred()
def replay(
    since: Annotated[
        str, typer.Option("--from", help="Calls received at or after: ISO 8601, or how long ago, like 24h.")
    ],
    until: Annotated[str, typer.Option("--to", help="Calls received before.")],
    customer: Customer = "",
    target_topic: Annotated[
        str, typer.Option(help="raw, or the name of your own topic for the enriched calls.")
    ] = "raw",
    checkpoint: Annotated[
        Path | None, typer.Option(help="File that stores the progress; the same command continues from there.")
    ] = None,
    comment: Comment = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Send stored calls again. Into raw this bills nothing twice: known calls are recognised, and calls that are too old to
    be known go to the dead letters, where `dlq requeue` checks them against the usage log."""
