"""Words, options and help of `meterbridge doctor`."""

from pathlib import Path
from typing import Annotated

import typer

from connectors.cli.parsers.deferred import deferred
from connectors.cli.parsers.options import PRINCIPAL, AsJson, Principal


@deferred()
def doctor(
    config: Annotated[
        Path | None, typer.Option(help="LiteLLM's config.yaml; it is only read.", show_default=False)
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            help="A running LiteLLM proxy, asked with LITELLM_MASTER_KEY. Default: LITELLM_API_URL, without --config."
        ),
    ] = None,
    principal: Principal = PRINCIPAL,
    as_json: AsJson = False,
    with_lago: Annotated[bool, typer.Option("--lago/--no-lago", help="Check Lago too.")] = True,
) -> None:
    """List settings of LiteLLM, Meterbridge, Kafka and Lago that lose or double money. Exit code 0: no such setting; 1:
    some; 2: something cannot be read.
    """
