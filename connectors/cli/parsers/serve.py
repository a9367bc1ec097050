"""Words, options and help of `meterbridge serve`."""

from typing import Annotated

import typer

from connectors.cli.parsers.deferred import deferred
from connectors.config.roles import SERVED


@deferred()
def serve(
    only: Annotated[str, typer.Option(help="Serve only this part: webhooks or api. Default: both.")] = ",".join(SERVED),
) -> None:
    """Receive webhooks on PORT and serve the management API on API_PORT until SIGTERM."""
