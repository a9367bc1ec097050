"""Words, options and help of `meterbridge held`."""

from typing import Annotated

import typer

from connectors.cli.parsers.deferred import deferred
from connectors.cli.parsers.options import AsJson, Comment, Customer, DryRun, group

held = group("Usage that is counted but not billed yet.")

Matched = Annotated[
    str,
    typer.Option(help="Ids of this form: `attack-*`. Ids with `unattributed:` match only if the pattern contains it."),
]


@held.command("list", epilog="Example: meterbridge held list --json")
@deferred()
def list_held(
    customer: Customer = "",
    match: Matched = "",
    reason: Annotated[str, typer.Option(help="Only usage that is held for this reason.")] = "",
    as_json: AsJson = False,
) -> None:
    """List held usage by customer, with the reason and the amount, read from the ledgers."""


@held.command("write-off", epilog="Example: meterbridge held write-off --customer test-user --comment 'load test'")
@deferred()
def write_off(
    *,
    customer: Annotated[str, typer.Option(help="The LiteLLM customer id whose held usage is written off.")] = "",
    match: Matched = "",
    comment: Comment,
    until: Annotated[str, typer.Option(help="Only usage that ended up to then; later usage stays held.")] = "0s",
    yes: Annotated[
        bool,
        typer.Option(
            "--yes", help="With --match: do not ask. Without this option and without a terminal, nothing is done."
        ),
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Write off held usage, of a customer or by pattern: it is never billed. The ledgers and the audit log keep it.

    With --match the command first shows the amount and asks.
    """
