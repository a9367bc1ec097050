"""`meterbridge held`: list or write off usage that waits for a mapping, a subscription or a billing period."""

import asyncio
import sys
from typing import Any

import typer
from rich.console import Group

from connectors.cli.base import moment_us, progress, say, table_of_lines
from connectors.cli.running import one_sentence, settings_of_command
from connectors.cli.sentences import fail
from connectors.cli.unknown_customer import nobody
from connectors.config.connections import deployment_of
from connectors.config.deployment import Deployment
from connectors.operations.backlog import uncounted_now
from connectors.operations.dead_letter_reasons import unknown_held_reason
from connectors.operations.ledgers import Held, held_of
from connectors.operations.reason_sentences import meanings
from connectors.operations.sender import CommandProducer
from connectors.operations.write_off import matching, order_write_off, order_write_off_of_all
from schemas.moments import to_iso
from schemas.money import plain, total
from schemas.plurals import numbered
from streams.runtime import clock

#: Number of lines of a table; `--json` prints all.
_SHOWN = 1000


def list_held(customer: str, match: str, reason: str, *, as_json: bool) -> None:
    """Run `meterbridge held list`."""
    if sentence := unknown_held_reason(reason):
        fail(sentence, 2)
    with one_sentence():
        deployment = deployment_of(settings := settings_of_command())
        read = _read(deployment, quiet=as_json)
        behind = uncounted_now(deployment)
        held = [usage for usage in read if customer in ("", usage.customer) and reason in ("", usage.reason)]
        held = matching(held, match) if match else held
        names = {usage.customer for usage in read}
        hint = "" if held or as_json else nobody(settings, customer, names)
    nothing = _nothing(names, " and ".join(repr(one) for one in (customer, match, reason) if one)) + hint
    unread = f"{behind.sentence}." if behind.sentence else ""
    answer = {**_answer(held), "uncounted": behind.as_object()}
    say(answer, as_json=as_json, table=lambda: _table(held, nothing=nothing, below=unread))


def write_off(*, customer: str, match: str, comment: str, until: str, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Run `meterbridge held write-off`."""
    if bool(customer) == bool(match):
        fail("give either --customer or --match, for example --customer acme.", 2)
    asks = bool(match) and not yes and not dry_run
    until_us = clock.now_us() if until == "0s" else moment_us(until, "--until")
    with one_sentence():
        deployment = deployment_of(settings := settings_of_command())
        read = _read(deployment, until_us, quiet=as_json)
        held = matching(read, match) if match else [usage for usage in read if usage.customer == customer]
        if not held:
            up_to = "" if until == "0s" else f" of usage that ended by {until}"
            hint = nobody(settings, customer, {usage.customer for usage in read})
            fail(f"nothing is held for {match or customer!r}{up_to}: see `meterbridge held list`.{hint}", 1)
        if asks:
            dry_run = not _agreed(held, as_json=as_json)
        audit_id = ""
        if not dry_run and match:
            audit_id = order_write_off_of_all(
                deployment, CommandProducer(deployment.kafka), held, match, until_us, comment
            )
        elif not dry_run:
            audit_id = order_write_off(deployment, CommandProducer(deployment.kafka), held, until_us, comment)
    answer = {**_answer(held), "dry_run": dry_run, "audit_id": audit_id}
    does = "Would be written off" if dry_run else "Ordered"
    say(answer, as_json=as_json, table=lambda: _table(held, f"{does}: {_sums(answer)}"))
    if asks and not as_json and not _watched():
        fail("nothing was written off: --match asks at a terminal. Add --yes to write off without a question.", 1)


def _agreed(held: list[Held], *, as_json: bool) -> bool:
    """Ask the person at the terminal; return False if there is no terminal."""
    return not as_json and _watched() and typer.confirm(f"Write off {_sums(_answer(held))}?", err=True)


def _watched() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _sums(answer: dict[str, Any]) -> str:
    return f"{numbered(answer['customers'], 'customer')}, {numbered(answer['calls'], 'call')}, {answer['usd']} USD"


def _read(deployment: Deployment, until_us: int | None = None, *, quiet: bool) -> list[Held]:
    with progress("reading ledgers", deployment.partitions, quiet=quiet) as on_progress:
        return asyncio.run(held_of(deployment, lambda _partition: on_progress(1), until_us))


def _answer(held: list[Held]) -> dict[str, Any]:
    return {
        "held": [_line(usage) for usage in held],
        "customers": len({usage.customer for usage in held}),
        "calls": sum(usage.calls for usage in held),
        "usd": plain(total(usage.usd for usage in held)),
    }


def _line(held: Held) -> dict[str, Any]:
    return {
        "customer": held.customer,
        "id_kind": held.id_kind,
        "reason": held.reason,
        "calls": held.calls,
        "usd": plain(held.usd),
        "first": to_iso(held.first_us),
        "last": to_iso(held.last_us),
    }


def _nothing(names: set[str], asked: str) -> str:
    """Say that nothing is held, and of a selection what is held besides. Args: names: of all customers with held usage."""
    besides = f" Usage of {numbered(len(names), 'customer')} is held." if names and asked else ""
    return f"Nothing is held{f' for {asked}' if asked else ''}.{besides}"


def _table(held: list[Held], title: str = "", nothing: str = "Nothing is held.", below: str = "") -> Any:
    if not held:
        return f"{nothing} {below}".rstrip()
    if len(held) > _SHOWN:
        title = f"{title + '. ' if title else ''}The {_SHOWN} highest of {len(held)}; --json prints all."
    table = table_of_lines([_line(usage) for usage in held[:_SHOWN]], title)
    return Group(table, meanings(usage.reason for usage in held[:_SHOWN]), *filter(None, [below]))
