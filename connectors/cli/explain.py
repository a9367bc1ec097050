"""`meterbridge explain`: the calls in a billed event, or the event that bills a call."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar

import typer
from rich.console import Group

from connectors.cli.base import duration_s, moment_us, say, table_of
from connectors.cli.dlq import dead_letter_line
from connectors.cli.optional_database import ask_database
from connectors.cli.running import one_sentence, settings_of_command
from connectors.cli.sentences import fail
from connectors.config.connections import deployment_of
from connectors.config.settings import load_settings
from connectors.operations.backlog import unread_for_explaining
from connectors.operations.call_stories import HELD, CallRow, EventStory, never_billed, usd_of, without_event
from connectors.operations.dead_letters import DeadLetter
from connectors.operations.explain import (
    MOST,
    CustomerCalls,
    calls_of_customer,
    stories_of_request,
    story_of_event,
)
from connectors.operations.known_ids import known_principal
from connectors.operations.reason_sentences import SENTENCES
from connectors.operations.rejected_lookup import open_with_id
from connectors.postgres.pool import Database
from connectors.telemetry.printable import shown
from schemas.errors import Rejected, TopicProblem, Unavailable
from schemas.moments import MAX_US, SECOND_US, to_datetime
from schemas.money import parse_amount, plain
from schemas.plurals import numbered
from schemas.ranges import dollars
from schemas.reasons import WRITTEN_OFF
from streams.core.delivery.receipt_states import FAILED, UNBILLABLE
from streams.core.metering.decisions import METERED

_SHOWN = 20
_PRICED_BY_LAGO = (
    "1 metered event, sent to Lago without an amount. A charge on its metric sets its price; "
    "without one in the plan Lago stores it and bills nothing."
)
_IF_IT_LASTS = "If it stays so: `curl $LAGO_API_URL/health`, then look for `breaker_opened` in the worker's log."
#: What is still missing until Lago bills the event, by its status; Lago has a completed one.
_MISSING = {
    "pending": f"The event is not at Lago yet. {_IF_IT_LASTS}",
    "processing": f"Lago has not accepted the event yet; it is sent again. {_IF_IT_LASTS}",
    "unanswered": "Lago may have the event: `meterbridge dlq requeue` sends it again under its id, and Lago keeps one.",
    "unbillable": "Lago has the event and does not bill it: docs/errors.md has the next step for its reason.",
    "failed": "Lago does not bill the event. `meterbridge dlq list` has its dead letter, unless that was dismissed.",
}
T = TypeVar("T")


def explain(
    transaction_id: str | None,
    request: str | None,
    customer: str | None,
    at: str | None,
    usd: str | None,
    around: str,
    *,
    as_json: bool,
) -> None:
    """Run `meterbridge explain`."""
    asked = sum(one is not None for one in (transaction_id, request, customer))
    if asked != 1:
        only = "only one of these" if asked else "one of these"
        fail(f"give {only}: a transaction id, --request, or --customer with --at.", 2)
    if customer is None and (at is not None or usd is not None):
        fail(
            "--at and --usd choose among the calls of a customer. Give --customer too, for example --customer acme.", 2
        )
    if customer is not None:
        _why(customer, at, usd, around, as_json=as_json)
        return
    story: EventStory | None = None
    calls: list[tuple[CallRow, EventStory | None]] = []
    with one_sentence():
        if transaction_id is not None:
            story = _ask(lambda database, code: story_of_event(database, transaction_id, code))
        else:
            calls = _ask(lambda database, code: stories_of_request(database, request or "", code))
    if transaction_id is not None:
        if story is None:
            fail(
                f"no event {transaction_id}: {_waiting()}it is not sealed yet, or the id is wrong. Repeat it in a minute; "
                "for a call's id use --request.",
                1,
            )
        say(_as_object(story), as_json=as_json, table=lambda: _proof(story))
    else:
        # Calls of one id are several attempts: one is in the log and not billed, another one may be rejected.
        rejected = [] if any(call.part for call, _ in calls) else _rejected(request or "", is_logged=bool(calls))
        answer = {
            "calls": [{**_line(call), "event": _as_object(of, calls=False) if of else None} for call, of in calls],
            "rejected": None if rejected is None else [dead_letter_line(one) for one in rejected],
        }
        say(answer, as_json=as_json, table=lambda: _whereabouts_of_all(calls, rejected))
    stories = [one for one in ([story] if story else [of for _, of in calls]) if one is not None]
    if any(story.status not in (HELD, WRITTEN_OFF) and not story.proved for story in stories):
        raise typer.Exit(1)


def _ask(question: Callable[[Database, str], Awaitable[T]]) -> T:
    """Ask the database; `question` also gets the code of the metric."""
    settings = settings_of_command()
    return ask_database(settings, lambda database: question(database, settings.lago_event_code))


def _waiting() -> str:
    """Say what the meter and the projector have not read yet, as the first of several causes; `""` = nothing."""
    deployment = deployment_of(load_settings())
    with one_sentence():
        try:
            behind = _ask(lambda database, _code: unread_for_explaining(deployment, database))
        except (Unavailable, TopicProblem) as error:
            return f"what is not read yet cannot be seen ({error.detail.removesuffix('.')}); or "
    return "".join(f"{one.sentence}; or " for one in behind if one.sentence)


def _rejected(request: str, *, is_logged: bool) -> list[DeadLetter] | None:
    """Return the open dead letters with an id; None = they cannot be read.

    `is_logged`: whether the usage log has a call with the id. Otherwise the command ends if there is no dead letter.
    """
    with one_sentence():
        try:
            deployment = deployment_of(load_settings())
            found = _ask(lambda database, _code: open_with_id(deployment, database, request))
        except (Unavailable, TopicProblem) as error:
            if is_logged:
                return None
            fail(
                f"no call {request} is in the usage log, and the dead letters cannot be read: {error.detail.removesuffix('.')}.",
                1,
            )
    if not found and not is_logged:
        fail(
            f"no call {request}: {_waiting()}it never arrived; or its post was refused (`webhook_requests_total`); "
            "or it was rejected, and its dead letter was dismissed, or has no id. Look for the call in "
            "`meterbridge dlq list`, then in LiteLLM; `meterbridge backfill` sends what never arrived.",
            1,
        )
    return found


def _whereabouts_of_all(calls: list[tuple[CallRow, EventStory | None]], rejected: list[DeadLetter] | None) -> str:
    shown_parts = [_whereabouts(calls)] if calls else []
    if rejected:
        shown_parts.append(_rejections(rejected))
    if rejected is None:
        shown_parts.append("The dead letters cannot be read now: a rejected call with this id is not shown.")
    return "\n".join(shown_parts)


def _rejections(rejected: list[DeadLetter]) -> str:
    return "\n".join(
        f"{shown(one.call_ids[0])} -> rejected: {_with_meaning(one.reason)}, dead letter {one.id}, see `meterbridge dlq show {one.id}`"
        for one in rejected
    )


def _with_meaning(reason: str) -> str:
    return f"{reason} ({SENTENCES[reason]})" if reason in SENTENCES else reason


def _why(customer: str, at: str | None, usd: str | None, around: str, *, as_json: bool) -> None:
    if at is None:
        fail("--customer needs --at: the moment of the usage.", 2)
    amount = None if usd is None else _amount(usd)
    middle_us, apart_us = moment_us(at, "--at"), duration_s(around, "--around") * SECOND_US
    since, until = to_datetime(max(0, middle_us - apart_us)), to_datetime(min(MAX_US - 1, middle_us + apart_us + 1))
    with one_sentence():
        found, seen = _ask(
            lambda database, code: _of_customer(
                database, customer, (since, until), to_datetime(middle_us), amount, code
            )
        )
    if not seen.calls:
        with one_sentence():
            known = _ask(lambda database, _code: known_principal(database, customer))
        if not known.known:
            meant = known.meant or "is it the id that LiteLLM knows, or the org?"
            fail(f"no customer and no org {customer!r} is known: {_waiting()}{meant}", 1)
        between = f"from {since:%Y-%m-%d %H:%M:%S} to {until:%Y-%m-%d %H:%M:%S} UTC"
        fail(f"no call of {customer} ended {between}: {_waiting()}look wider with `--around 24h`.", 1)
    in_doubt = seen.calls
    events = {of.last.transaction_id: _as_object(of.last, calls=False) for _, of in in_doubt if of is not None}
    answer = {
        "calls": [{**_line(call), "event": of.last.transaction_id if of else None} for call, of in in_doubt],
        "events": list(events.values()),
        "usd": plain(usd_of(in_doubt)),
        "never_billed_usd": plain(never_billed(in_doubt)),
        "looked_at": seen.looked_at,
        "amount_found": found,
    }
    absent = "" if found else f"no call and no event of {usd} USD; "
    say(answer, as_json=as_json, table=lambda: _reasons(in_doubt, seen.looked_at, absent))
    if not found:
        raise typer.Exit(1)


async def _of_customer(
    database: Database,
    customer: str,
    between: tuple[datetime, datetime],
    middle: datetime,
    amount: Decimal | None,
    code: str,
) -> tuple[bool, CustomerCalls]:
    """Return whether the amount was found, and its calls; otherwise the calls nearest to the moment."""
    if amount is not None:
        found = await calls_of_customer(database, customer, *between, usd=amount, nearest_to=middle, code=code)
        if found.calls:
            return True, found
    return amount is None, await calls_of_customer(database, customer, *between, nearest_to=middle, code=code)


def _amount(usd: str) -> Decimal:
    try:
        amount = parse_amount(usd.strip())
        dollars(amount)
    except (Rejected, ValueError):
        fail(f"--usd: {usd!r} is not a number. Give dollars, for example 0.012.", 2)
    return amount


def _state(story: EventStory) -> str:
    return f"{story.status}: {_why_of(story)}" if story.reason else story.status


def _why_of(story: EventStory) -> str:
    if not story.reason_is_past:
        return story.reason
    return f"{story.reason} when it was counted; now: `meterbridge held list`"


def _reasons(calls: list[tuple[CallRow, EventStory | None]], looked_at: int, absent: str) -> Any:
    rows = [
        (
            f"{call.started_at:%Y-%m-%d %H:%M:%S.%f} - {call.ended_at:%H:%M:%S.%f}",
            call.request_id or call.call_id,
            call.model,
            call.tokens_input,
            call.tokens_output,
            _amount_of(call),
            without_event(call) if of is None else f"{of.last.transaction_id} ({_state(of.last)}{_as_of(of.last)})",
        )
        for call, of in calls[:_SHOWN]
    ]
    of_all = (
        numbered(looked_at, "call") if len(calls) == looked_at else f"{len(calls)} of {numbered(looked_at, 'call')}"
    )
    unbilled = never_billed(calls)
    of_it = f", {plain(unbilled)} USD of it never billed" if unbilled else ""
    title = f"{absent}{of_all}, {plain(usd_of(calls))} USD{of_it}, by their ends (UTC)"
    more = f"\n... and {len(calls) - _SHOWN} more; --json prints all" if len(calls) > _SHOWN else ""
    if len(calls) == MOST:
        more += f"\nThese are the {MOST} calls nearest to --at: a shorter --around shows all of its calls."
    columns = ("from - to", "call", "model", "tokens in", "tokens out", "USD", "Lago event")
    return Group(table_of(columns, rows, title), f"`meterbridge explain <Lago event>` proves its sum.{more}")


def _as_object(story: EventStory, *, calls: bool = True) -> dict[str, Any]:
    answer: dict[str, Any] = {
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
        "billed_at": story.billed_at,
        "calls_found": len(story.calls),
        "usd_of_calls": plain(story.usd_of_calls),
        "proved": story.proved,
        "instead_of": story.instead_of or None,
        "again": None if story.again is None else _as_object(story.again, calls=False),
        "reason_is_past": story.reason_is_past,
        "may_be_in_lago": story.may_be_in_lago,
    }
    return {**answer, "lines": [_line(call) for call in story.calls]} if calls else answer


def _line(call: CallRow) -> dict[str, Any]:
    return {
        "call_id": call.call_id,
        "request_id": call.request_id,
        "identity": call.identity,
        "decision": call.decision,
        "customer": call.customer,
        "model": call.model,
        "tokens": call.tokens,
        "tokens_input": call.tokens_input,
        "tokens_output": call.tokens_output,
        "usd": plain(call.usd),
        "billed_usd": None if call.billed is None else plain(call.billed),
        "rate": call.rate,
        "started_at": call.started_at,
        "ended_at": call.ended_at,
        "part": call.part,
        "raw": call.place,
    }


def _proof(story: EventStory) -> Any:
    rows = [
        (call.request_id or call.call_id, call.model, call.tokens, _amount_of(call), call.place)
        for call in story.calls[:_SHOWN]
    ]
    more = f"\n... and {len(story.calls) - _SHOWN} more; --json prints all" if len(story.calls) > _SHOWN else ""
    calls = table_of(("call", "model", "tokens", "USD", "raw"), rows)
    return Group(_headline(story), calls, verdict(story) + more)


def _amount_of(call: CallRow) -> str:
    """Format the billed amount of a call, and with a rate card also its cost."""
    if call.billed is None:
        return plain(call.usd)
    return f"{plain(call.billed)} (rate {call.rate}; cost {plain(call.usd)})"


def _headline(story: EventStory) -> str:
    why = f" ({_why_of(story)})" if story.reason else ""
    to = f" for subscription {story.subscription} of {story.org_id}" if story.subscription else ""
    instead = f", instead of {story.instead_of}" if story.instead_of else ""
    return shown(f"{story.transaction_id}: {story.status}{why}{to}{_as_of(story)}{instead}")


def _as_of(story: EventStory) -> str:
    return f", billed as of {story.billed_at:%Y-%m-%d %H:%M:%S} UTC" if story.is_shifted else ""


def verdict(story: EventStory) -> str:
    """Say whether the amount of the event is exactly that of these calls, and whether Lago has the event. Other metered
    events have no amount, because Lago prices them.
    """
    sum_of_calls = f"{numbered(len(story.calls), 'call')}, {plain(story.usd_of_calls)} USD"
    if story.status == HELD:
        return f"{sum_of_calls} wait."
    if story.status == WRITTEN_OFF:
        return f"{sum_of_calls} written off: never billed."
    if not story.adds_up:
        return f"{sum_of_calls}, but the event has {numbered(story.claimed_calls, 'call')} and {plain(story.cents)} cents: NOT proved."
    metered = bool(story.calls) and all(call.decision == METERED for call in story.calls)
    if story.again is None:
        missing = _MISSING.get(_state_of(story))
        if metered:
            return _PRICED_BY_LAGO if missing is None else f"1 metered event without an amount. {missing}"
        sums = f"{sum_of_calls} = {plain(story.cents)} cents"
        return f"{sums} billed: proved." if missing is None else f"{sums}: the sum is proved. {missing}"
    instead = f"{_headline(story.again)}; {verdict(story.again)}"
    if metered:
        return f"replaced by\n{instead}"
    return f"{sum_of_calls} = {plain(story.cents)} cents, billed instead of it by\n{instead}"


def _state_of(story: EventStory) -> str:
    if story.status == FAILED and story.reason.startswith(UNBILLABLE):
        return "unbillable"
    return "unanswered" if story.may_be_in_lago else story.status


def _whereabouts(calls: list[tuple[CallRow, EventStory | None]]) -> str:
    lines = []
    for call, story in calls:
        where = without_event(call) if story is None else f"{_headline(story)}; {verdict(story)}"
        lines.append(shown(f"{call.request_id or call.call_id} {call.model} {_amount_of(call)} USD -> ") + where)
    return "\n".join(lines)
