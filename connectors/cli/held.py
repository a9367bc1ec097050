"""`meterbridge held`: list or write off usage that waits for a mapping, a subscription or a billing period."""

import asyncio
import sys
import time
from typing import Any

import typer

from connectors.cli.base import moment_us, one_sentence, progress, say, settings_of_command, table_of_lines
from connectors.cli.sentences import fail
from connectors.config.connections import deployment_of
from connectors.config.deployment import Deployment
from connectors.operations.ledgers import Held, held_of
from connectors.operations.sender import CommandProducer
from connectors.operations.write_off import matching, order_write_off, order_write_off_of_all
from schemas.moments import to_iso
from schemas.money import plain, total

#: Number of lines of a table; `--json` prints all.
_SHOWN = 1000


def list_held(customer: str, match: str, *, as_json: bool) -> None:
    """`meterbridge held list`."""
    with one_sentence():
        found = [
            one for one in _read(deployment_of(settings_of_command()), quiet=as_json) if customer in ("", one.customer)
        ]
        found = matching(found, match) if match else found
    say(_answer(found), as_json=as_json, table=lambda: _table(found))


def write_off(*, customer: str, match: str, why: str, until: str, yes: bool, dry_run: bool, as_json: bool) -> None:
    """`meterbridge held write-off`."""
    if bool(customer) == bool(match):
        fail("give either --customer or --match.", 2)
    asks = bool(match) and not yes and not dry_run
    until_us = time.time_ns() // 1000 if until == "0s" else moment_us(until)
    with one_sentence():
        deployment = deployment_of(settings_of_command())
        read = [one for one in _read(deployment, quiet=as_json) if one.first_us <= until_us]
        found = matching(read, match) if match else [one for one in read if one.customer == customer]
        if not found:
            fail(f"nothing is held for {match or customer!r} up to then.", 1)
        if asks:
            dry_run = not _agreed(found, as_json=as_json)
        audit_id = ""
        if not dry_run and match:
            audit_id = order_write_off_of_all(
                deployment, CommandProducer(deployment.kafka), found, match, until_us, why
            )
        elif not dry_run:
            audit_id = order_write_off(deployment, CommandProducer(deployment.kafka), found, until_us, why)
    answer = {**_answer(found), "dry_run": dry_run, "audit_id": audit_id}
    does = "Would be written off" if dry_run else "Ordered"
    say(answer, as_json=as_json, table=lambda: _table(found, f"{does}: {_sums(answer)}"))


def _agreed(found: list[Held], *, as_json: bool) -> bool:
    """Ask the person at the terminal; no if there is no terminal."""
    return not as_json and _watched() and typer.confirm(f"Write off {_sums(_answer(found))}?", err=True)


def _watched() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _sums(answer: dict[str, Any]) -> str:
    return f"{answer['customers']} customers, {answer['calls']} calls, {answer['usd']} USD"


def _read(deployment: Deployment, *, quiet: bool) -> list[Held]:
    with progress("reading ledgers", deployment.partitions, quiet=quiet) as told:
        return asyncio.run(held_of(deployment, lambda _partition: told(1)))


def _answer(found: list[Held]) -> dict[str, Any]:
    return {
        "held": [_line(one) for one in found],
        "customers": len({one.customer for one in found}),
        "calls": sum(one.calls for one in found),
        "usd": plain(total(one.usd for one in found)),
    }


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
    if len(found) > _SHOWN:
        title = f"{title + '. ' if title else ''}The {_SHOWN} highest of {len(found)}; --json prints all."
    return table_of_lines([_line(one) for one in found[:_SHOWN]], title)
