"""Words, options and help of `meterbridge lago`."""

from typing import Annotated

import typer

from connectors.cli.parsers.deferred import deferred
from connectors.cli.parsers.options import AsJson, Comment, DryRun, group

lago = group("Prepare Lago, and bill usage again that Lago did not bill.")


@lago.command(epilog="Example: LAGO_API_KEY=... meterbridge lago setup && meterbridge doctor")
@deferred()
def setup(
    organization: Annotated[
        str,
        typer.Option(help="A further organisation of Lago, of LAGO_ORGANIZATIONS; unset = the one of LAGO_API_URL."),
    ] = "",
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit code 1 if anything is missing or differs.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Create missing metrics, plans and the webhook endpoint in Lago. Exit code 1 if an existing one differs."""


@lago.command(epilog="Example: meterbridge lago rebill --dry-run")
@deferred()
def rebill(
    comment: Comment = "",
    org: Annotated[str, typer.Option(help="Only usage that was sent for this org.")] = "",
    also_taken: Annotated[
        bool,
        typer.Option(
            "--also-taken",
            help="Include usage on the invoice of another customer, who has the subscription's id now: refund that customer first. "
            "Needs --org.",
        ),
    ] = False,
    also_unclear: Annotated[
        bool,
        typer.Option(
            "--also-unclear",
            help="Include usage that may be on the last invoice, which does not show it: check first that it is not. Needs --org.",
        ),
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Bill usage again that was sent to a subscription after its end, or after its last invoice was counted: on the
    org's next subscription. Needs Postgres.

    Exit code 1: some usage has no subscription yet, is on another customer's invoice, or may be on the last one (`unclear`);
    or Lago could not be asked about an org.
    """
