"""`meterbridge held`: usage that waits for a mapping, a subscription or a period."""

import asyncio
import time
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
from connectors.operations.held import order_write_off
from connectors.operations.ledgers import Held, books_of, held_in
from connectors.operations.sending import Sender
from connectors.settings import Settings
from schemas.moments import to_iso
from schemas.money import ZERO, add, plain

held = typer.Typer(help="Usage that is counted and not billed yet.", no_args_is_help=True)


@held.command("list", epilog="Example: meterbridge held list --json")
def list_held(
    customer: Annotated[str, typer.Option(help="Only this LiteLLM customer id.")] = "", as_json: AsJson = False
) -> None:
    """List held usage by customer, with the reason and the amount, read from the ledgers."""
    with one_sentence():
        found = [one for one in _read(settings_of_command(), quiet=as_json) if customer in ("", one.customer)]
    say(_answer(found), as_json=as_json, table=lambda: _table(found))


@held.command("write-off", epilog="Example: meterbridge held write-off --customer test-user --why 'load test'")
def write_off(
    customer: Annotated[str, typer.Option(help="The LiteLLM customer id whose held usage is written off.")],
    why: Annotated[str, typer.Option(help="The reason, for the audit log.")],
    until: Annotated[str, typer.Option(help="Only usage that ended up to then; later usage stays held.")] = "0s",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Write off a customer's held usage: it is never billed. The ledgers and the audit log keep it."""
    until_us = time.time_ns() // 1000 if until == "0s" else moment_us(until)
    with one_sentence():
        settings = settings_of_command()
        found = [one for one in _read(settings, quiet=as_json) if one.customer == customer and one.first_us <= until_us]
        if not found:
            fail(f"nothing is held for {customer!r} up to then.", 1)
        audit_id = "" if dry_run else order_write_off(settings, Sender(settings), found, until_us, why)
    answer = {**_answer(found), "dry_run": dry_run, "audit_id": audit_id}
    say(answer, as_json=as_json, table=lambda: _table(found, "Would be written off" if dry_run else "Ordered"))


def _read(settings: Settings, *, quiet: bool) -> list[Held]:
    with progress("reading ledgers", settings.kafka_partitions, quiet=quiet) as told:
        return held_in(asyncio.run(books_of(settings, lambda _partition: told(1))))


def _answer(found: list[Held]) -> dict[str, Any]:
    usd = ZERO
    for one in found:
        usd = add(usd, one.usd)
    return {"held": [_line(one) for one in found], "calls": sum(one.calls for one in found), "usd": plain(usd)}


def _line(one: Held) -> dict[str, Any]:
    return {
        "customer": one.customer,
        "id_kind": one.id_kind,
        "reason": one.reason,
        "calls": one.calls,
        "usd": plain(one.usd),
        "first": to_iso(one.first_us),
        "last": to_iso(one.last_us),
    }


def _table(found: list[Held], title: str = "") -> Any:
    if not found:
        return "Nothing is held."
    return table_of(tuple(_line(found[0])), [tuple(_line(one).values()) for one in found], title)
