"""`meterbridge explain`: the calls behind a bill, the bill behind a call."""

import asyncio
from typing import Annotated, Any

import typer
from rich.console import Group

from connectors.commands.base import AsJson, fail, one_sentence, say, settings_of_command, table_of
from connectors.operations.explain import CallRow, EventStory, stories_of_request, story_of_event
from connectors.postgres.pool import Database, postgres_url
from schemas.money import plain

_SHOWN = 20


def explain(
    transaction_id: Annotated[str | None, typer.Argument(help="Of a Lago event: its calls.")] = None,
    request: Annotated[
        str | None, typer.Option(help="A request id, LiteLLM call id or identity: its event, receipt and post.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prove a bill call by call, or find where a call was billed. Exit code 1 when a sum is not proved."""
    if (transaction_id is None) == (request is None):
        fail("give either a transaction id or --request.", 2)
    with one_sentence():
        url = postgres_url(settings_of_command())
        story, calls = asyncio.run(_asked(url, transaction_id, request))
    if transaction_id is not None:
        if story is None:
            fail(f"no event {transaction_id}: it was never sealed, or is not projected yet.", 1)
        say(_told(story), as_json=as_json, table=lambda: _proof(story))
    else:
        if not calls:
            fail(f"no call {request}: it never arrived, was refused (see dlq list), or is not projected yet.", 1)
        answer = {"calls": [{**_line(call), "event": _told(of, calls=False) if of else None} for call, of in calls]}
        say(answer, as_json=as_json, table=lambda: _whereabouts(calls))
    stories = [one for one in ([story] if story else [of for _, of in calls]) if one is not None]
    if any(one.status != "held" and not one.proved for one in stories):
        raise typer.Exit(1)


async def _asked(
    url: str, transaction_id: str | None, request: str | None
) -> tuple[EventStory | None, list[tuple[CallRow, EventStory | None]]]:
    database = Database(url, size=1)
    try:
        if transaction_id is not None:
            return await story_of_event(database, transaction_id), []
        return None, await stories_of_request(database, request or "")
    finally:
        database.terminate()


def _told(story: EventStory, *, calls: bool = True) -> dict[str, Any]:
    told: dict[str, Any] = {
        "transaction_id": story.transaction_id,
        "status": story.status,
        "external_subscription_id": story.subscription,
        "org_id": story.org_id,
        "amount_cents": plain(story.cents),
        "calls": story.claimed_calls,
        "attempts": story.attempts,
        "reason": story.reason,
        "sealed_at": story.sealed_at,
        "processed_at": story.processed_at,
        "calls_found": len(story.calls),
        "usd_of_calls": plain(story.usd_of_calls),
        "proved": story.proved,
    }
    return {**told, "lines": [_line(call) for call in story.calls]} if calls else told


def _line(call: CallRow) -> dict[str, Any]:
    return {
        "call_id": call.call_id,
        "request_id": call.request_id,
        "identity": call.identity,
        "decision": call.decision,
        "customer": call.customer,
        "model": call.model,
        "tokens": call.tokens,
        "usd": plain(call.usd),
        "ended_at": call.ended_at,
        "raw": call.place,
    }


def _proof(story: EventStory) -> Any:
    shown = [
        (call.request_id or call.call_id, call.model, call.tokens, plain(call.usd), call.place)
        for call in story.calls[:_SHOWN]
    ]
    more = f"\n... and {len(story.calls) - _SHOWN} more; --json prints all" if len(story.calls) > _SHOWN else ""
    calls = table_of(("call", "model", "tokens", "USD", "raw"), shown)
    return Group(_headline(story), calls, _verdict(story) + more)


def _headline(story: EventStory) -> str:
    why = f" ({story.reason})" if story.reason else ""
    to = f" for subscription {story.subscription} of {story.org_id}" if story.subscription else ""
    return f"{story.transaction_id}: {story.status}{why}{to}"


def _verdict(story: EventStory) -> str:
    found = f"{len(story.calls)} calls, {plain(story.usd_of_calls)} USD"
    if story.status == "held":
        return f"{found} wait."
    if story.proved:
        return f"{found} = {plain(story.cents)} cents billed: proved."
    return f"{found}, but {story.claimed_calls} calls and {plain(story.cents)} cents are billed: NOT proved."


def _whereabouts(calls: list[tuple[CallRow, EventStory | None]]) -> Any:
    lines = []
    for call, story in calls:
        where = f"not billed: {call.decision}" if story is None else f"{_headline(story)}; {_verdict(story)}"
        lines.append(f"{call.request_id or call.call_id} {call.model} {plain(call.usd)} USD -> {where}")
    return "\n".join(lines)
