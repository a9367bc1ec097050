"""`meterbridge ledger`: start a halted ledger anew."""

import asyncio
import re
from typing import Any

import typer

from connectors.cli.base import moment_us, one_sentence, say, settings_of_command, table_of_lines
from connectors.cli.sentences import fail
from connectors.config.connections import deployment_of
from connectors.config.deployment import Deployment
from connectors.operations.ledger_init import carry_out, place_of, plans
from connectors.operations.sender import CommandProducer
from schemas.errors import MeterbridgeError
from schemas.moments import to_iso
from streams.state.ledger_restart import EARLIEST, LATEST, RestartPlan, RestartPosition


def init(since: str, why: str, partition: int | None, *, yes: bool, dry_run: bool, as_json: bool) -> None:
    """`meterbridge ledger init`."""
    wanted = _wanted(since, partition)
    with one_sentence():
        deployment = deployment_of(settings_of_command())
        if partition is not None and partition >= deployment.partitions:
            fail(f"there is no partition {partition}.", 2)
        partitions = list(range(deployment.partitions)) if partition is None else [partition]
        told, wrong = asyncio.run(_done(deployment, partitions, wanted, why, do=yes and not dry_run))
    answer = {"ledgers": told, "done": yes and not dry_run}
    say(answer, as_json=as_json, table=lambda: table_of_lines(told))
    if wrong or not any(one["next"] != "" for one in told):
        raise typer.Exit(1)


async def _done(
    deployment: Deployment, partitions: list[int], wanted: RestartPosition, why: str, *, do: bool
) -> tuple[list[dict[str, Any]], bool]:
    place = place_of(deployment)
    sender = CommandProducer(deployment.kafka)
    told, wrong = [], False
    for number, found in zip(partitions, await plans(place, partitions, wanted), strict=True):
        audit_id = ""
        if isinstance(found, RestartPlan) and found.reason and do:
            audit_id = await carry_out(deployment, sender, place, found, wanted, why)
        wrong = wrong or isinstance(found, MeterbridgeError)
        told.append(_line(number, found, audit_id))
    return told, wrong


def _line(partition: int, found: RestartPlan | MeterbridgeError, audit_id: str) -> dict[str, Any]:
    """A line of the table; `next` is empty if there is nothing to do."""
    line: dict[str, Any] = {"partition": partition, "state": "sound", "stood": "", "next": "", "skipped": 0}
    line |= {"checked_before": "", "detail": "", "audit_id": audit_id}
    if isinstance(found, MeterbridgeError):
        return line | {"state": found.reason, "detail": found.detail}
    if not found.reason:
        return line | {"stood": found.stood}
    filled = f"{found.fill} offsets are filled up" if found.fill else ""
    checked = to_iso(found.forgot_us) if found.forgot_us else ""
    return line | {
        "state": found.reason,
        "stood": found.stood,
        "next": found.next,
        "skipped": found.skipped,
        "checked_before": checked,
        "detail": filled,
    }


def _wanted(text: str, partition: int | None) -> RestartPosition:
    if text in (EARLIEST, LATEST):
        return RestartPosition(text)
    if re.fullmatch(r"\d+", text):
        if partition is None:
            fail("an offset belongs to one partition: give --partition too.", 2)
        return RestartPosition(offset=int(text))
    return RestartPosition(at_ms=moment_us(text) // 1000)
