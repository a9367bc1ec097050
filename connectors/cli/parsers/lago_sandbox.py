"""Words, options and help of `meterbridge lago-sandbox`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from connectors.cli.parsers.deferred import deferred


@deferred(reads_settings=False)
def lago_sandbox(
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free port and prints it.")
    ] = 3000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    api_key: Annotated[str | None, typer.Option(help="The API key to accept. Default: any key.")] = None,
    store: Annotated[
        Literal["postgres", "clickhouse"], typer.Option(help="The event store of Lago to imitate.")
    ] = "postgres",
    dedup: Annotated[bool, typer.Option(help="Turn on deduplication in the clickhouse store.")] = False,
    delay: Annotated[float, typer.Option(min=0, help="Delay each answer by this many seconds.")] = 0.0,
    rate_limit: Annotated[
        int | None, typer.Option(min=1, help="Event requests per second before a 429, with the headers of Lago Cloud.")
    ] = None,
    journal: Annotated[Path | None, typer.Option(help="File that keeps accepted data across restarts.")] = None,
    webhook_secret: Annotated[
        str | None, typer.Option(help="Secret that signs its webhooks; set LAGO_WEBHOOK_SECRET to the same value.")
    ] = None,
) -> None:
    """Serve a stand-in for Lago, for trials and tests; it sends no real bills."""
