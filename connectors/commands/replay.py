"""`meterbridge replay`: a stretch of time once more."""

from pathlib import Path
from typing import Annotated, Any

import typer

from connectors.commands.base import (
    AsJson,
    DryRun,
    fail,
    moment_us,
    one_sentence,
    progress,
    say,
    settings_of_command,
    table_of,
)
from connectors.connections import deployment_of
from connectors.operations.audit import audited
from connectors.operations.replay import RAW, Contents, Replay
from connectors.operations.sending import Sender
from schemas.money import plain


def replay(
    since: Annotated[
        str, typer.Option("--from", help="Calls received at or after: ISO 8601, or how long ago, like 24h.")
    ],
    until: Annotated[str, typer.Option("--to", help="Calls received before.")],
    customer: Annotated[str, typer.Option(help="Only this LiteLLM customer id.")] = "",
    into: Annotated[str, typer.Option(help="raw, or the name of your own topic for the enriched calls.")] = RAW,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File that stores the progress; the same command continues from there.")
    ] = None,
    why: Annotated[str, typer.Option(help="The reason, for the audit log.")] = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Send stored calls again. Into raw this bills nothing twice: known calls are recognised, and calls that are too old to
    be known go to the dead letters, where `dlq requeue` checks them against the usage log."""
    since_us, until_us = moment_us(since), moment_us(until)
    if since_us >= until_us:
        fail("--from is not before --to.", 2)
    with one_sentence():
        deployment = deployment_of(settings_of_command())
        planned = Replay.planned(deployment, since_us // 1000, until_us // 1000, into, customer)
        if dry_run:
            with progress("reading", planned.stretch.offsets, quiet=as_json) as passed:
                contents = planned.contents(passed)
            say(_answer(contents), as_json=as_json, table=lambda: _table(contents))
            return
        sender = Sender(deployment.kafka)
        audited(deployment, sender, "replay", planned.asked(), reason=why, count=planned.stretch.offsets)
        with progress("replaying", planned.stretch.offsets, quiet=as_json) as passed:
            count = planned.run(sender, checkpoint, passed)
    answer = {"into": planned.into, "records": count}
    say(answer, as_json=as_json, table=lambda: f"{count} records were sent into {planned.into}.")


def _answer(contents: Contents) -> dict[str, Any]:
    total = contents.total()
    return {
        "dry_run": True,
        "calls": total.calls,
        "tokens": total.tokens,
        "usd": plain(total.usd),
        "unreadable": contents.unreadable,
        "customers": {
            name: {"calls": one.calls, "tokens": one.tokens, "usd": plain(one.usd)}
            for name, one in sorted(contents.customers.items())
        },
    }


def _table(contents: Contents) -> Any:
    rows: list[tuple[object, ...]] = [
        (name, one.calls, one.tokens, plain(one.usd)) for name, one in sorted(contents.customers.items())
    ]
    total = contents.total()
    rows.append(("all", total.calls, total.tokens, plain(total.usd)))
    unread = f"; {contents.unreadable} records hold no call" if contents.unreadable else ""
    return table_of(("customer", "calls", "tokens", "USD"), rows, f"Would be sent{unread}")
