"""Words, options and help of `meterbridge worker`."""

from typing import Annotated

import typer

from connectors.cli.parsers.deferred import deferred
from connectors.config.roles import ROLES


@deferred()
def worker(
    only: Annotated[
        str | None,
        typer.Option(
            help=f"Run only these roles of {','.join(ROLES)}, one process each. Default: all; project only with Postgres."
        ),
    ] = None,
) -> None:
    """Run the workers until SIGTERM: meter makes Lago events from usage, sink and retry send them, project fills
    Postgres.
    """
