"""`meterbridge dlq`: what Lago would not take and what could not be billed, seen and dealt with."""

import asyncio
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from connectors.cli.base import moment_ms, moment_us, one_sentence, progress, say, settings_of_command, table_of
from connectors.cli.sentences import fail
from connectors.config.connections import deployment_of, revealed
from connectors.config.deployment import Deployment
from connectors.config.settings import Settings, load_settings
from connectors.operations.accepted_refusals import ACCEPTABLE
from connectors.operations.audit_record import audited
from connectors.operations.dead_letter_reasons import unknown_reason
from connectors.operations.dead_letters import KINDS, DeadLetter, Filters, unresolved
from connectors.operations.requeue import RequeueResult, desk
from connectors.operations.sender import CommandProducer
from connectors.postgres.pool import Database
from schemas.moments import to_iso
from schemas.money import ZERO, add, plain


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
        fail(f"no dead letter {letter}: it was dealt with, or never died.", 1)
    value = found.value.decode(errors="replace")
    answer = {**_line(found), "first_error": found.first_error, "last_error": found.last_error, "value": value}
    say(answer, as_json=as_json, table=lambda: table_of(("", ""), [(k, str(v)) for k, v in answer.items()]))


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
    if trust_log_from is not None:
        moment_ms(trust_log_from)
    with one_sentence():
        settings = settings_of_command()
        _act("requeue", settings, kind, filters, why, limit, trust_log_from, accept, dry_run=dry_run, as_json=as_json)
    _check_reason(kind, reason)


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
        fail("--why is needed: money is given up.", 2)
    filters = _filters(reason, customer, since, until, letter)
    with one_sentence():
        _act("purge", settings_of_command(), kind, filters, why, limit, None, dry_run=dry_run, as_json=as_json)
    _check_reason(kind, reason)


def _check_reason(kind: str, reason: str) -> None:
    """After the answer: scripts read that nothing was found, and see why by the exit code."""
    with one_sentence():
        if sentence := unknown_reason(deployment_of(load_settings()), kind, reason):
            fail(sentence, 2)


def _act(
    action: str,
    settings: Settings,
    kind: str,
    filters: Filters,
    why: str,
    limit: int,
    trusted: str | None,
    accept: str = "",
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    if dry_run:
        letters = list(islice(_found(deployment_of(settings), kind, filters), limit))
        answer: dict[str, Any] = {"dry_run": True, "count": len(letters), "by_reason": _sums(letters)}
        say(answer, as_json=as_json, table=lambda: _table(letters[:20], _sums(letters), len(letters)))
        return
    done = asyncio.run(_acted(action, settings, kind, filters, why, limit, trusted, accept, quiet=as_json))
    counts = ("requeued", "purged", "known", "impossible", "unaccepted")
    answer = {name: getattr(done, name) for name in counts}
    say({**answer, "reasons": done.reasons}, as_json=as_json, table=lambda: _done_text(answer, done))


def _done_text(answer: dict[str, Any], done: RequeueResult) -> str:
    why = ", ".join(f"{count} {reason}" for reason, count in sorted(done.reasons.items()))
    return ", ".join(f"{count} {what}" for what, count in answer.items()) + (f" ({why})" if why else "")


async def _acted(
    action: str,
    settings: Settings,
    kind: str,
    filters: Filters,
    why: str,
    limit: int,
    trusted: str | None,
    accept: str,
    *,
    quiet: bool,
) -> RequeueResult:
    deployment = deployment_of(settings)
    sender = CommandProducer(deployment.kafka)
    url = settings.postgres_url
    database = Database(revealed(url), size=1) if url is not None else None
    trusted_us = None if trusted is None else moment_us(trusted)
    try:
        async with desk(deployment, sender, database, trusted_us) as at:
            letters = await asyncio.to_thread(lambda: list(islice(_found(deployment, kind, filters), limit)))
            usd = _total(letters)
            target = {"kind": kind, "reason": filters.reason, "customer": filters.customer, "letter": filters.letter}
            if trusted is not None:
                target["trust_log_from"] = trusted
            if accept:
                target["accept"] = accept
            audit_id = audited(
                deployment, sender, f"dlq.{action}", target, reason=why, count=len(letters), cost_usd=usd
            )
            with progress(action, len(letters), quiet=quiet) as told:
                if action == "purge":
                    return await at.purge(letters, audit_id, told)
                return await at.requeue(letters, audit_id, told, (accept,) if accept else ())
    finally:
        if database is not None:
            database.terminate()


def _found(deployment: Deployment, kind: str, filters: Filters) -> Iterator[DeadLetter]:
    kinds: tuple[str, ...] = KINDS if kind == "both" else (kind,)
    if not set(kinds) <= set(KINDS):
        fail("--kind takes events, calls or both.", 2)
    if filters.letter:
        kinds = tuple(one for one in kinds if filters.letter.startswith(one + "/"))
    for one in kinds:
        yield from unresolved(deployment, one, filters)


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
    sums: dict[str, tuple[int, Any]] = {}
    for letter in letters:
        count, usd = sums.get(letter.reason, (0, ZERO))
        sums[letter.reason] = (count + 1, add(usd, letter.usd or ZERO))
    return {reason: {"count": count, "usd": plain(usd)} for reason, (count, usd) in sorted(sums.items())}


def _total(letters: Iterable[DeadLetter]) -> Any:
    usd = ZERO
    for letter in letters:
        usd = add(usd, letter.usd or ZERO)
    return usd


def _table(letters: list[DeadLetter], by_reason: dict[str, dict[str, Any]], count: int) -> Any:
    if not count:
        return "Nothing is dead."
    rows = [tuple(_line(letter).values()) for letter in letters]
    sums = ", ".join(f"{one['count']} {reason} ({one['usd']} USD)" for reason, one in by_reason.items())
    return table_of(
        tuple(_line(letters[0])), [tuple("" if v is None else v for v in row) for row in rows], f"{count}: {sums}"
    )
