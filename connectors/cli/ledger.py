"""`meterbridge ledger`: start a halted ledger again, or rebuild a lost one."""

import asyncio
import re
from typing import Any

import msgspec
import typer

from connectors.cli.base import moment_us, say, table_of_lines
from connectors.cli.running import one_sentence, settings_of_command
from connectors.cli.sentences import fail
from connectors.config.connections import deployment_of
from connectors.config.deployment import Deployment
from connectors.kafka.growth import check_ledger_topics
from connectors.operations.ledger_init import carry_out, place_of, plans
from connectors.operations.ledger_rebuild import check_stopped, planned
from connectors.operations.ledger_rebuild import rebuild as carry_out_rebuild
from connectors.operations.sender import CommandProducer
from schemas.errors import MeterbridgeError
from schemas.moments import to_iso
from streams.state.ledger_rebuild import SOUND
from streams.state.ledger_restart import EARLIEST, LATEST, RestartPlan, RestartPosition

_NOTHING = "no ledger is lost or halted, so there is nothing to do, and nothing was changed."


def init(since: str, comment: str, partition: int | None, *, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Run `meterbridge ledger init`."""
    restart_at = _restart_position(since, partition)
    with one_sentence():
        deployment = deployment_of(settings_of_command())
        partitions = _chosen(deployment, partition)
        lines, wrong = asyncio.run(_done(deployment, partitions, restart_at, comment, do=yes and not dry_run))
    answer = {"ledgers": lines, "done": yes and not dry_run}
    say(answer, as_json=as_json, table=lambda: table_of_lines(lines))
    if wrong:
        raise typer.Exit(1)
    if not any(line["next"] != "" for line in lines):
        fail(_NOTHING, 1)


def rebuild(comment: str, partition: int | None, *, accept_gaps: bool, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Run `meterbridge ledger rebuild`."""
    do = yes and not dry_run
    with one_sentence():
        deployment = deployment_of(settings_of_command())
        partitions = _chosen(deployment, partition)
        if do:
            check_stopped(deployment)
        lines = asyncio.run(_rebuilt(deployment, partitions, comment, accept_gaps=accept_gaps, do=do))
    answer = {"ledgers": lines, "done": do}
    say(answer, as_json=as_json, table=lambda: table_of_lines(lines))
    lost = [line for line in lines if line["state"] != SOUND]
    if not lost:
        fail(_NOTHING, 1)
    if any(line["gaps"] for line in lost) and not accept_gaps:
        fail("the topics do not have all data any more: see the column gaps. --accept-gaps rebuilds without it.", 1)


async def _rebuilt(
    deployment: Deployment, partitions: list[int], comment: str, *, accept_gaps: bool, do: bool
) -> list[dict[str, Any]]:
    lines = []
    for number in partitions:
        one = await (
            carry_out_rebuild(deployment, number, comment, accept_gaps=accept_gaps)
            if do
            else planned(deployment, number)
        )
        lines.append(msgspec.to_builtins(one) | {"gaps": "; ".join(one.gaps)})
    return lines


def _chosen(deployment: Deployment, partition: int | None) -> list[int]:
    """Return the partitions. Raises: see `check_ledger_topics`."""
    if partition is not None and partition >= deployment.partitions:
        fail(f"--partition: there is no partition {partition}. Give a number from 0 to {deployment.partitions - 1}.", 2)
    check_ledger_topics(deployment.kafka, deployment.topics, deployment.partitions)
    return list(range(deployment.partitions)) if partition is None else [partition]


async def _done(
    deployment: Deployment, partitions: list[int], restart_at: RestartPosition, comment: str, *, do: bool
) -> tuple[list[dict[str, Any]], bool]:
    place = place_of(deployment)
    sender = CommandProducer(deployment.kafka)
    lines, wrong = [], False
    for number, plan in zip(partitions, await plans(place, partitions, restart_at), strict=True):
        audit_id = ""
        if isinstance(plan, RestartPlan) and plan.reason and do:
            audit_id = await carry_out(deployment, sender, place, plan, restart_at, comment)
        wrong = wrong or isinstance(plan, MeterbridgeError)
        lines.append(_line(number, plan, audit_id))
    return lines, wrong


def _line(partition: int, plan: RestartPlan | MeterbridgeError, audit_id: str) -> dict[str, Any]:
    """Return a line of the table; `next` is empty if there is nothing to do."""
    line: dict[str, Any] = {"partition": partition, "state": "sound", "stood": "", "next": "", "skipped": 0}
    line |= {"checked_before": "", "detail": "", "audit_id": audit_id}
    if isinstance(plan, MeterbridgeError):
        return line | {"state": plan.reason, "detail": plan.detail}
    if not plan.reason:
        return line | {"stood": plan.stood}
    filled = f"{plan.fill} offsets are filled up" if plan.fill else ""
    checked = to_iso(plan.forgot_us) if plan.forgot_us else ""
    return line | {
        "state": plan.reason,
        "stood": plan.stood,
        "next": plan.next,
        "skipped": plan.skipped,
        "checked_before": checked,
        "detail": filled,
    }


def _restart_position(text: str, partition: int | None) -> RestartPosition:
    if text in (EARLIEST, LATEST):
        return RestartPosition(text)
    if re.fullmatch(r"\d+", text):
        if partition is None:
            fail("--from: an offset belongs to one partition. Give --partition too, for example --partition 3.", 2)
        return RestartPosition(offset=int(text))
    return RestartPosition(at_ms=moment_us(text, "--from") // 1000)
