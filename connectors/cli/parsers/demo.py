"""Words, options and help of `meterbridge demo`."""

from typing import Annotated

import typer

from connectors.cli.parsers.deferred import deferred


@deferred(reads_settings=False)
def demo(
    rate: Annotated[int, typer.Option(min=1, max=5000, help="Calls per second.")] = 50,
    seconds: Annotated[int, typer.Option(min=1, max=3600, help="How long to send calls, in seconds.")] = 20,
    lago: Annotated[
        str | None, typer.Option(help="URL of the Lago to bill to; its key is LAGO_API_KEY. Default: the sandbox.")
    ] = None,
) -> None:
    """Run everything on this machine with sample calls, without Docker, Java or network."""
