"""Words, options and help of `meterbridge canary`."""

from typing import Annotated

import typer

from connectors.cli.parsers.deferred import deferred
from connectors.cli.parsers.options import GROUP_CONTEXT, AsJson, Comment
from connectors.cli.parsers.unexpected import Commands

canary_group = Commands(
    invoke_without_command=True,
    context_settings=GROUP_CONTEXT,
)


@canary_group.callback(epilog="Example: meterbridge canary --once")
@deferred()
def canary(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Bill one call, report its outcome, and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bill one synthetic call per minute through the whole pipeline, and export whether its exact amount reached Lago
    in time.

    Runs until SIGTERM. With --once, exit code 1: the call was not billed correctly and in time.
    """


@canary_group.command(epilog="Example: meterbridge canary setup")
@deferred()
def setup(comment: Comment = "", as_json: AsJson = False) -> None:
    """Make the canary's plan, org, subscription and mapping if they are missing."""
