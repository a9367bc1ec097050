"""Words, options and help of `meterbridge reconcile`."""

from typing import Annotated

import typer

from connectors.cli.parsers.deferred import deferred
from connectors.cli.parsers.options import AsJson


@deferred()
def reconcile(
    lago: Annotated[
        bool, typer.Option("--lago", help="Compare with Lago's current usage too. Needs Postgres.")
    ] = False,
    litellm: Annotated[
        bool, typer.Option("--litellm", help="Compare with LiteLLM's spend logs too, by hour. Needs Postgres.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option("--from", help="With --litellm: calls that started at or after.", show_default="24h"),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", help="With --litellm: calls that started before.", show_default="5m")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check in ledgers and events that all usage is billed once, and at LiteLLM's cost. Exit code 1 if something is missing,
    doubled or different. Usage that is not billed is listed with its reason and does not change the exit code."""
