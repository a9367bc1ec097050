"""`meterbridge lago`: set up Lago, and bill usage again that reached Lago after a subscription's end or its invoice."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import typer

from connectors.billing.lago_setup import Setup, SetupReport
from connectors.billing.org_sync import OrgSynchroniser
from connectors.cli.account_tables import lago_client, lago_key, own_account_tables
from connectors.cli.base import say, table_of_lines
from connectors.cli.running import one_sentence, settings_of_command
from connectors.cli.sentences import fail, print_error
from connectors.config.connections import deployment_of, postgres_url
from connectors.config.settings import Settings
from connectors.lago.errors import LagoIntegrationError, LagoRejected
from connectors.operations.after_end import (
    PAGE,
    EndedSubscriptions,
    LagoHistory,
    UninvoicedEvent,
    billed_orgs,
    dollars_of,
    pages,
)
from connectors.operations.after_invoice import NotInvoiced, not_invoiced
from connectors.operations.audit_record import audited
from connectors.operations.delivered import DeliveredRows, lost_pages
from connectors.operations.known_ids import known_org
from connectors.operations.last_invoice import STILL_ARRIVING
from connectors.operations.rebilling import Rebilling, receipts_are_read
from connectors.operations.sender import CommandProducer
from connectors.postgres.pool import Database
from connectors.telemetry.printable import shown
from schemas.organizations import DEFAULT, DEFAULT_LABEL
from schemas.plurals import numbered
from streams.core.delivery.after_end import AGAIN
from streams.runtime.clock import now_us


def setup(organization: str, *, check: bool, as_json: bool) -> None:
    """Run `meterbridge lago setup`."""
    with one_sentence():
        name = DEFAULT if organization == DEFAULT_LABEL else organization
        report = asyncio.run(_set_up(settings_of_command(), name, only_check=check))
    if as_json:
        answer = {"right": not report.complaints, "created": report.created, "complaints": report.complaints}
        say(answer, as_json=True, table=str)
    for complaint in report.complaints:
        print_error(complaint)
    if not as_json:
        typer.echo(shown(_words(report), lines=True))
    if report.complaints:
        raise typer.Exit(1)


def rebill(comment: str, org: str, *, also_taken: bool, also_unclear: bool, dry_run: bool, as_json: bool) -> None:
    """Run `meterbridge lago rebill`."""
    if (also_taken or also_unclear) and not org:
        fail("--also-taken and --also-unclear need --org: name the org whose invoice you have looked at.", 2)
    with one_sentence():
        also = _Also(org, also_taken, also_unclear)
        lost, is_whole = asyncio.run(_billed_again(settings_of_command(), comment, also, dry_run=dry_run))
    say([_line(event) for event in lost], as_json=as_json, table=lambda: _rebilled(lost, dry_run=dry_run))
    if not (is_whole and all(event.able for event in lost)):
        raise typer.Exit(1)


class _Also(NamedTuple):
    """The facts that a person has checked in Lago; `org`: they apply only to this org, `""` = to all."""

    org: str
    taken: bool
    unclear: bool


async def _billed_again(
    settings: Settings, comment: str, also: _Also, *, dry_run: bool
) -> tuple[list[UninvoicedEvent], bool]:
    """Return the lost events, and whether Lago answered all requests."""
    lago_key(settings)
    with Database(postgres_url(settings), size=1) as database:
        if also.org and not (found := await known_org(database, also.org)).known:
            meant = f": {found.meant}" if found.meant else "."
            fail(f"--org: no org {also.org!r} is known{meant}", 1)
        async with own_account_tables(settings, 1) as account_tables:
            await receipts_are_read(deployment_of(settings), database)
            tables = account_tables.customers.table, account_tables.orgs.table
            ends = {name: EndedSubscriptions(lago) for name, lago in account_tables.lagos.items()}
            known, uninvoiced, is_whole = {}, [], True
            billed = await billed_orgs(database, now_us())
            for org_id in [org for org in billed if also.org in {"", org}]:
                organization = account_tables.organizations.of(org_id)
                if (lago := account_tables.lagos.get(organization)) is None:
                    print_error(f"Org {org_id} is in the Lago organisation {organization}, which is not configured.")
                    is_whole = False
                    continue
                try:
                    record = account_tables.orgs.table.get(org_id) or account_tables.org_records.blank(org_id)
                    history = await ends[organization].of(record, now_us())
                except LagoRejected as error:
                    print_error(f"Lago cannot be asked about org {org_id}: {error}")
                    is_whole = False
                    continue
                try:
                    code = settings.lago_event_code
                    rows = DeliveredRows(database, org_id, code)
                    late = await not_invoiced(rows, history.lives, org_id, lago, now_us(), code, {})
                except LagoIntegrationError as error:
                    # An event with a moment after the end is on no invoice, regardless of the events that the last
                    # invoice counted.
                    print_error(f"Lago does not show what the last invoices of org {org_id} counted: {error}")
                    late, is_whole = [], False
                if also.taken:
                    history = history._replace(gaps=[gap._replace(customer="") for gap in history.gaps])
                if lost := await _lost(settings, database, history, late, also):
                    truth = OrgSynchroniser(*tables, account_tables.org_records, lago, now_us=now_us)
                    await truth.refresh(org_id)
                    known[org_id] = history, late
                    uninvoiced += lost
            if dry_run or not any(one.able for one in uninvoiced):
                return uninvoiced, is_whole
            return await _act(settings, database, known, also, comment), is_whole


async def _act(
    settings: Settings,
    database: Database,
    known: Mapping[str, tuple[LagoHistory, list[NotInvoiced]]],
    also: _Also,
    comment: str,
) -> list[UninvoicedEvent]:
    """Find the events that are still lost, while no other process bills again, and bill those that are `able`; return
    all of them.
    """
    rebilled = []
    async with Rebilling(deployment_of(settings), database) as rebilling:
        for history, late in known.values():
            left = await _lost(settings, database, history, late, also)
            rebilled += left
            able = [event for event in left if event.able]
            for start in range(0, len(able), PAGE):
                page = able[start : start + PAGE]
                await asyncio.to_thread(_audited, settings, page, comment)
                await rebilling.bill(page)
    return rebilled


def decided(named: Mapping[str, str]) -> dict[str, str]:
    """Apply `--also-unclear`: the person says that these events are on no invoice. Events that are still arriving
    become clear without a person.
    """
    return {name: why if why == STILL_ARRIVING else "" for name, why in named.items()}


async def _lost(
    settings: Settings, database: Database, history: LagoHistory, late: Sequence[NotInvoiced], also: _Also
) -> list[UninvoicedEvent]:
    """Find the present uninvoiced events of an org."""
    at_us, code = now_us(), settings.lago_event_code
    lost = [event async for page in pages(database, history.org, history.gaps, at_us, code) for event in page]
    for life, named in late:
        seen = decided(named) if also.unclear else named
        lost += [event async for page in lost_pages(database, history.org, life, seen, at_us, code) for event in page]
    return lost


def _audited(settings: Settings, able: list[UninvoicedEvent], comment: str) -> None:
    target = {"events": str(len(able)), "org": able[0].org_id}
    usd = dollars_of(able)
    deployment = deployment_of(settings)
    audited(
        deployment,
        CommandProducer(deployment.kafka),
        "lago.rebill",
        target,
        reason=comment,
        count=len(able),
        cost_usd=usd,
    )


def _line(lost: UninvoicedEvent) -> dict[str, Any]:
    again = lost.instead
    return {
        "event": lost.event.transaction_id,
        "org": lost.org_id,
        "subscription": lost.subscription,
        "cents": lost.event.precise_total_amount_cents,
        "again_as": lost.event.transaction_id + AGAIN if lost.able else None,
        "on": again.external_subscription_id if lost.able and again is not None else None,
        "taken_by": lost.taken_by or None,
        "unclear": lost.unclear or None,
    }


def _rebilled(lost: list[UninvoicedEvent], *, dry_run: bool) -> Any:
    if not lost:
        return "Nothing was posted after an end, or after its invoice."
    title = "Would be billed again" if dry_run else "Billed again, where a subscription is named"
    return table_of_lines([{name: value or "-" for name, value in _line(event).items()} for event in lost], title)


async def _set_up(settings: Settings, organization: str, *, only_check: bool) -> SetupReport:
    async with lago_client(settings, organization) as client:
        return await Setup(client, settings.lago_event_code, settings.lago_webhook_url, only_check=only_check).run()


def _words(report: SetupReport) -> str:
    made = "\n".join([f"{len(report.created)} made.", *report.created]) if report.created else "Nothing was missing."
    if report.complaints:
        wrong = numbered(len(report.complaints), "thing differs or is missing", "things differ or are missing")
        return f"{made}\n{wrong}." if report.created else f"{wrong}."
    return made
