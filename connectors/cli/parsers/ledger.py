"""Words, options and help of `meterbridge ledger`."""

from typing import Annotated

import typer

from connectors.cli.parsers.deferred import deferred
from connectors.cli.parsers.options import AsJson, Comment, DryRun, group

ledger = group("The meter's ledgers: one for each partition of the raw topic.")


@ledger.command(
    "init", epilog="Example: meterbridge ledger init --from earliest --comment 'disk of kafka-2 lost' --yes"
)
@deferred()
def init(
    since: Annotated[
        str,
        typer.Option(
            "--from",
            help="Where to begin: earliest, latest, an offset, or a record time (ISO 8601, or how long ago, like 24h).",
        ),
    ],
    comment: Comment = "",
    partition: Annotated[int | None, typer.Option(min=0, help="Only this partition. Default: all.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Make the changes. Without it they are only shown.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Let ledgers that halted with offset_out_of_range, offset_gap, ledger_missing or ledger_behind continue; healthy ones are
    not changed.

    It shows what is skipped. Exit code 0: done, or can be done with --yes; 1: nothing to do, or a ledger cannot continue.
    """


@ledger.command(epilog="Example: meterbridge ledger rebuild --comment 'meter.changelog was deleted' --yes")
@deferred()
def rebuild(
    comment: Comment = "",
    partition: Annotated[int | None, typer.Option(min=0, help="Only this partition. Default: all.")] = None,
    accept_gaps: Annotated[
        bool, typer.Option("--accept-gaps", help="Rebuild even if the topics no longer contain all data.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Make the changes. Without it they are only shown.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Rebuild ledgers that are lost or damaged (ledger_missing, ledger_behind, ledger_imbalance, unreadable_ledger) from the
    other topics, so that nothing is lost or billed twice (the exceptions are in docs/ledgers.md); healthy ones are not changed.
    Stop the meter first.

    Exit code 0: done, or can be done with --yes; 1: nothing to do, or some data is lost.
    """
