"""Words, options and help of `meterbridge dlq`."""

from typing import Annotated

import typer

from connectors.cli.parsers.deferred import deferred
from connectors.cli.parsers.options import AsJson, Comment, Customer, DryRun, TrustLogFrom, group

dlq = group("Dead letters: events that Lago refused, and calls that were rejected.")

Reason = Annotated[str, typer.Option(help="Only dead letters with this reason code (docs/errors.md).")]
Since = Annotated[str | None, typer.Option(help="Only dead letters since then: ISO 8601, or how long ago, like 24h.")]
Until = Annotated[str | None, typer.Option(help="Only dead letters before then: ISO 8601, or how long ago.")]
Kind = Annotated[str, typer.Option(help="Which dead letters: events, calls or both.")]
One = Annotated[str, typer.Option("--id", help="Only this dead letter: an id that `dlq list` printed.")]
Accept = Annotated[str, typer.Option(help="Bill calls that were kept aside for this reason: implausible_cost.")]
InLago = Annotated[
    bool | None,
    typer.Option(
        "--may-be-in-lago/--not-in-lago",
        help="Only events that Lago may have, and then bills; or only the other events and the rejected calls.",
    ),
]
_LIMIT = Annotated[int, typer.Option(min=1, help="The largest number of dead letters.")]


@dlq.command("list", epilog="Example: meterbridge dlq list --reason id_conflict --since 24h")
@deferred()
def list_dead_letters(
    reason: Reason = "",
    customer: Customer = "",
    since: Since = None,
    until: Until = None,
    kind: Kind = "both",
    limit: _LIMIT = 100,
    in_lago: InLago = None,
    as_json: AsJson = False,
) -> None:
    """List the open dead letters, oldest first; the sums cover all of them."""


@dlq.command(epilog="Example: meterbridge dlq show events/0/17")
@deferred()
def show(
    dead_letter: Annotated[str, typer.Argument(help="An id that `dlq list` printed.")], as_json: AsJson = False
) -> None:
    """Show one dead letter: its reason, how often it was tried, and its content (prompts are never stored)."""


@dlq.command(epilog="Example: meterbridge dlq requeue --reason lago_refused --comment 'plan fixed in Lago' --dry-run")
@deferred()
def requeue(
    reason: Reason = "",
    customer: Customer = "",
    since: Since = None,
    until: Until = None,
    kind: Kind = "both",
    dead_letter: One = "",
    comment: Comment = "",
    trust_log_from: TrustLogFrom = None,
    limit: _LIMIT = 100_000,
    accept: Accept = "",
    in_lago: InLago = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters again: events to Lago, and calls to the meter if the usage log shows that they were not billed."""


@dlq.command(epilog="Example: meterbridge dlq dismiss --reason bad_cost --until 30d --comment 'test traffic'")
@deferred()
def dismiss(
    reason: Reason = "",
    customer: Customer = "",
    since: Since = None,
    until: Until = None,
    kind: Kind = "both",
    dead_letter: One = "",
    comment: Comment = "",
    limit: _LIMIT = 100_000,
    in_lago: InLago = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Close dead letters so that they are never billed. The audit log keeps the person, the reason and the amount.

    At least one option must say which ones. Lago bills an event that it has, although you dismiss it: --not-in-lago leaves out
    those that it may have.
    """
