"""`meterbridge dlq`: events that Lago refused and calls that could not be billed: list, show, requeue, dismiss them."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

from connectors.cli.base import (
    moment_ms,
    moment_us,
    one_sentence,
    progress,
    say,
    settings_of_command,
    table_of,
    table_of_lines,
)
from connectors.cli.sentences import fail
from connectors.config.connections import deployment_of, revealed
from connectors.config.deployment import Deployment
from connectors.config.settings import Settings, load_settings
from connectors.operations.accepted_refusals import ACCEPTABLE
from connectors.operations.dead_letter_reasons import unknown_reason
from connectors.operations.dead_letters import BOTH, KINDS, DeadLetter, Filters, found_letters
from connectors.operations.requeue import RequeueResult, desk
from connectors.operations.sender import CommandProducer
from connectors.postgres.pool import Database
from schemas.moments import to_iso
from schemas.money import ZERO, plain, total


def list_letters(
    reason: str, customer: str, since: str | None, until: str | None, kind: str, limit: int, *, as_json: bool
) -> None:
    """`meterbridge dlq list`."""
    with one_sentence():
        deployment = deployment_of(settings_of_command())
        letters = list(_found(deployment, kind, _filters(reason, customer, since, until)))
        by_reason = _sums(letters)
        shown = [_line(letter) for letter in letters[:limit]]
    answer = {"letters": shown, "by_reason": by_reason, "count": len(letters)}
    say(answer, as_json=as_json, table=lambda: _table(letters[:limit], by_reason, len(letters)))
    _check_reason(kind, reason)


def show(letter: str, *, as_json: bool) -> None:
    """`meterbridge dlq show`."""
    with one_sentence():
        kind = letter.partition("/")[0]
        if kind not in KINDS:
            fail("a letter's id is <events or calls>/<partition>/<offset>.", 2)
        found = next(_found(deployment_of(settings_of_command()), kind, Filters(letter=letter)), None)
    if found is None:
        fail(f"no dead letter {letter} is open: it was requeued or dismissed, or the id is wrong.", 1)
    value = found.value.decode(errors="replace")
    answer = {**_line(found), "first_error": found.first_error, "last_error": found.last_error, "value": value}
    say(answer, as_json=as_json, table=lambda: table_of(("", ""), [(k, str(v)) for k, v in answer.items()]))


class _Action(NamedTuple):
    """What is done about which letters; `trusted`: see `caught_up`, `""` = no such word."""

    name: str
    kind: str
    filters: Filters
    why: str
    limit: int
    trusted: str = ""
    accept: str = ""


def requeue(
    reason: str,
    customer: str,
    since: str | None,
    until: str | None,
    kind: str,
    letter: str,
    why: str,
    trust_log_from: str | None,
    limit: int,
    accept: str,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """`meterbridge dlq requeue`."""
    if accept not in ("", *ACCEPTABLE):
        fail(f"--accept takes {', '.join(ACCEPTABLE)}.", 2)
    filters = _filters(reason, customer, since, until, letter)
    moment_ms(trust_log_from)
    _act(_Action("requeue", kind, filters, why, limit, trust_log_from or "", accept), dry_run=dry_run, as_json=as_json)


def purge(
    reason: str,
    customer: str,
    since: str | None,
    until: str | None,
    kind: str,
    letter: str,
    why: str,
    limit: int,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """`meterbridge dlq purge`."""
    if not why and not dry_run:
        fail("--why is needed: the letters are never billed then.", 2)
    filters = _filters(reason, customer, since, until, letter)
    _act(_Action("purge", kind, filters, why, limit), dry_run=dry_run, as_json=as_json)


def _check_reason(kind: str, reason: str) -> None:
    """Refuse an unknown reason after the answer: a script reads that nothing was found, and the exit code says why."""
    with one_sentence():
        if sentence := unknown_reason(deployment_of(load_settings()), kind, reason):
            fail(sentence, 2)


def _act(action: _Action, *, dry_run: bool, as_json: bool) -> None:
    with one_sentence():
        settings = settings_of_command()
        if dry_run:
            letters = list(_found(deployment_of(settings), action.kind, action.filters, action.limit))
            sums = _sums(letters)
            answer: dict[str, Any] = {"dry_run": True, "count": len(letters), "by_reason": sums}
            say(answer, as_json=as_json, table=lambda: _table(letters[:20], sums, len(letters)))
        else:
            done = asyncio.run(_acted(action, settings, quiet=as_json))
            counts = ("requeued", "purged", "known", "impossible", "unaccepted")
            answer = {name: getattr(done, name) for name in counts}
            say({**answer, "reasons": done.reasons}, as_json=as_json, table=lambda: _done_text(answer, done))
    _check_reason(action.kind, action.filters.reason)


def _done_text(answer: dict[str, Any], done: RequeueResult) -> str:
    why = ", ".join(f"{count} {reason}" for reason, count in sorted(done.reasons.items()))
    return ", ".join(f"{count} {what}" for what, count in answer.items()) + (f" ({why})" if why else "")


async def _acted(action: _Action, settings: Settings, *, quiet: bool) -> RequeueResult:
    deployment, url = deployment_of(settings), settings.postgres_url
    trusted_us = moment_us(action.trusted) if action.trusted else None
    with nullcontext() if url is None else Database(revealed(url), size=1) as database:
        async with desk(deployment, CommandProducer(deployment.kafka), database, trusted_us) as at:
            name, kind, filters, why, limit, trusted, accept = action
            letters = await asyncio.to_thread(lambda: list(_found(deployment, kind, filters, limit)))
            more = {"trust_log_from": trusted, "accept": accept}
            audit_id = await at.audit(name, letters, kind, filters, why, **more)
            with progress(name, len(letters), quiet=quiet) as told:
                if name == "purge":
                    return await at.purge(letters, audit_id, told)
                return await at.requeue(letters, audit_id, told, (accept,) if accept else ())


def _found(deployment: Deployment, kind: str, filters: Filters, limit: int | None = None) -> Iterator[DeadLetter]:
    if kind not in (BOTH, *KINDS):
        fail("--kind takes events, calls or both.", 2)
    return found_letters(deployment, kind, filters, limit)


def _filters(reason: str, customer: str, since: str | None, until: str | None, letter: str = "") -> Filters:
    return Filters(reason, customer, moment_ms(since), moment_ms(until), letter)


def _line(letter: DeadLetter) -> dict[str, Any]:
    return {
        "letter": letter.id,
        "died_at": to_iso(letter.at_ms * 1000),
        "reason": letter.reason,
        "customer": letter.customer,
        "transaction_id": letter.transaction_id,
        "usd": None if letter.usd is None else plain(letter.usd),
        "attempts": letter.attempts,
        "requeued": letter.requeued,
    }


def _sums(letters: Iterable[DeadLetter]) -> dict[str, dict[str, Any]]:
    by_reason: dict[str, list[DeadLetter]] = {}
    for letter in letters:
        by_reason.setdefault(letter.reason, []).append(letter)
    return {
        reason: {"count": len(same), "usd": plain(total(letter.usd or ZERO for letter in same))}
        for reason, same in sorted(by_reason.items())
    }


def _table(letters: list[DeadLetter], by_reason: dict[str, dict[str, Any]], count: int) -> Any:
    if not count:
        return "There are no open dead letters."
    sums = ", ".join(f"{one['count']} {reason} ({one['usd']} USD)" for reason, one in by_reason.items())
    return table_of_lines([_line(letter) for letter in letters], f"{count}: {sums}")
