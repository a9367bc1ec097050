"""`meterbridge canary`: sends a synthetic call per minute, and reports its outcome."""

import asyncio
from secrets import token_hex
from typing import Any

import typer

from connectors.billing.canary_setup import CanarySetup
from connectors.billing.org_accounts import OrgAccounts
from connectors.cli.account_tables import lago_key, own_account_tables
from connectors.cli.base import say
from connectors.cli.running import one_sentence, settings_of_command
from connectors.config.connections import deployment_of
from connectors.config.settings import Settings
from connectors.operations.audit_record import audited
from connectors.operations.canary import sentence_of
from connectors.operations.sender import CommandProducer
from connectors.processes.canary import canary_of, plan_of, run_canary
from schemas.moments import SECOND_US
from schemas.money import plain
from streams.core.delivery.canary import BILLED, canary_name, canary_org
from streams.runtime.clock import now_us


def canary(context: typer.Context, *, once: bool, as_json: bool) -> None:  # noqa: ARG001  # the parser's
    """Run `meterbridge canary`."""
    with one_sentence():
        settings = settings_of_command(asks_once=False)
        if not once:
            raise typer.Exit(run_canary(settings))
        answer = asyncio.run(_once(settings))
    say(answer, as_json=as_json, table=lambda: str(answer["sentence"]))
    if answer["result"] != BILLED:
        raise typer.Exit(1)


def setup(comment: str, *, as_json: bool) -> None:
    """Run `meterbridge canary setup`."""
    with one_sentence():
        settings = settings_of_command()
        lago_key(settings)
        plan_of(settings)
        made = asyncio.run(_set_up(settings, comment))
    org = canary_org(settings.deployment_name, settings.org_id_prefixes)
    answer = {"customer": canary_name(settings.deployment_name), "org": org, "created": made}
    say(
        answer,
        as_json=as_json,
        table=lambda: "\n".join([f"{len(made)} made.", *made]) if made else "Nothing was missing.",
    )


async def _once(settings: Settings) -> dict[str, Any]:
    async with canary_of(settings) as one:
        await one.find_subscription()
        outcome = await one.once(token_hex(4))
        return {
            "result": outcome.result,
            "call": outcome.call.id,
            "subscription": one.subscription,
            "owed_cents": plain(outcome.call.owed_cents),
            "seconds": outcome.wait_us // SECOND_US,
            "sentence": sentence_of(outcome, one.subscription, one.refusal),
        }


async def _set_up(settings: Settings, comment: str) -> list[str]:
    name, deployment = canary_name(settings.deployment_name), deployment_of(settings)
    org = canary_org(settings.deployment_name, settings.org_id_prefixes)

    async def before_change() -> None:
        target = {"customer": name, "org": org}
        sender = CommandProducer(deployment.kafka)
        await asyncio.to_thread(audited, deployment, sender, "canary.setup", target, reason=comment)

    async with own_account_tables(settings, 2) as tables:
        accounts = OrgAccounts(tables.billing, tables.org_records, now_us)
        mappings, code = tables.mappings, settings.lago_event_code
        organization = settings.lago_organization_names[0]
        return await CanarySetup(tables.lago, accounts, mappings, code, name, org, before_change, organization).run()
