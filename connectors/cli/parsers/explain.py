"""Words, options and help of `meterbridge explain`."""

from typing import Annotated

import typer

from connectors.cli.parsers.deferred import deferred
from connectors.cli.parsers.options import AsJson


@deferred()
def explain(
    transaction_id: Annotated[
        str | None, typer.Argument(help="The transaction id of a Lago event: shows its calls.")
    ] = None,
    request: Annotated[
        str | None,
        typer.Option(help="A request id, LiteLLM call id or identity: shows the event that billed the call."),
    ] = None,
    customer: Annotated[
        str | None,
        typer.Option(help="A LiteLLM customer id or an org. With --at: shows what was billed to it at that moment."),
    ] = None,
    at: Annotated[str | None, typer.Option(help="The moment: ISO 8601, or how long ago, like 24h.")] = None,
    usd: Annotated[
        str | None, typer.Option(help="The amount in question, in dollars. Without it, all amounts are shown.")
    ] = None,
    around: Annotated[str, typer.Option(help="How long before and after --at to search.")] = "5m",
    as_json: AsJson = False,
) -> None:
    """Show the calls of a billed event, the event that billed a call, or the usage of a customer at a moment. Needs
    Postgres. Exit code 1 if a sum is not proved, or if nothing is found.
    """
