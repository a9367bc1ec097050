"""Words, options and help of `meterbridge recover`."""

from typing import Annotated, Literal

import typer

from connectors.cli.parsers.deferred import deferred
from connectors.cli.parsers.options import AsJson, Comment, DryRun


@deferred()
def recover(
    comment: Comment = "",
    undecided: Annotated[
        Literal["billed", "lost"] | None,
        typer.Option("--undecided", help="How to treat held usage that may be billed by an event that only Lago has."),
    ] = None,
    accept_lost_rates: Annotated[
        bool, typer.Option("--accept-lost-rates", help="Continue although some rate cards are lost completely.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Make the changes. Without it they are only shown.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Restore the data of a lost Kafka cluster from Postgres into the empty topics of a new cluster: mappings, orgs,
    rate cards, and events that Lago has not accepted. Afterwards `backfill` bills each lost call once. Stop the workers
    first. Needs Postgres and Lago.

    Exit code 0: done, or can be done with --yes; 1: not possible now.
    """
