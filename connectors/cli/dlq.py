"""`meterbridge dlq`: events that Lago refused and calls that could not be billed: list, show, requeue, dismiss them."""

import asyncio
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple, NoReturn

from rich.console import Group

from connectors.cli.base import moment_ms, moment_us, progress, say, span_us, table_of, table_of_lines
from connectors.cli.optional_database import optional_database
from connectors.cli.running import one_sentence, settings_of_command
from connectors.cli.sentences import fail
from connectors.cli.unknown_customer import nobody
from connectors.config.connections import deployment_of
from connectors.config.deployment import Deployment
from connectors.config.settings import Settings
from connectors.operations.accepted_refusals import ACCEPTABLE
from connectors.operations.backlog import uncounted_now
from connectors.operations.dead_letter_reasons import unknown_reason
from connectors.operations.dead_letters import (
    BOTH,
    EVENTS,
    KINDS,
    DeadLetter,
    Filters,
    expected_forms,
    found_letters,
    may_be_in_lago,
)
from connectors.operations.reason_sentences import meanings
from connectors.operations.requeue import requeuer
from connectors.operations.requeue_judge import RequeueJudge, RequeueResult
from connectors.operations.sender import CommandProducer
from schemas.moments import to_iso
from schemas.money import ZERO, plain, total
from schemas.plurals import numbered

_ID = re.compile(rf"({'|'.join(KINDS)})/[0-9]+/[0-9]+")
#: The numbers of a `RequeueResult` that are printed.
_OUTCOMES = ("requeued", "dismissed", "known", "impossible", "unaccepted")
#: The member of a dead letter that says whether Lago may have it.
_MAY_BE_IN_LAGO = "may_be_in_lago"


def list_dead_letters(
    reason: str,
    customer: str,
    since: str | None,
    until: str | None,
    kind: str,
    limit: int,
    *,
    in_lago: bool | None,
    as_json: bool,
) -> None:
    """Run `meterbridge dlq list`."""
    with one_sentence():
        deployment = deployment_of(settings := settings_of_command())
        _check_reason(deployment, kind, reason)
        filters = _filters(reason, customer, since, until, in_lago=in_lago)
        dead_letters = list(_matching(deployment, kind, filters))
        by_reason = _sums(dead_letters)
        lines = [dead_letter_line(dead_letter) for dead_letter in dead_letters[:limit]]
        nothing = "" if dead_letters or as_json else _nothing(settings, kind, filters)
    answer = {"dead_letters": lines, "by_reason": by_reason, "count": len(dead_letters)}
    doubtful = sum(map(may_be_in_lago, dead_letters))
    say(
        answer,
        as_json=as_json,
        table=lambda: nothing or _table(dead_letters[:limit], by_reason, len(dead_letters), doubtful),
    )


def show(dead_letter: str, *, as_json: bool) -> None:
    """Run `meterbridge dlq show`."""
    with one_sentence():
        kind = _kind_of(dead_letter)
        match = next(_matching(deployment_of(settings_of_command()), kind, Filters(dead_letter=dead_letter)), None)
    if match is None:
        _not_open(dead_letter)
    value = match.value.decode(errors="replace")
    errors = {"first_error": match.first_error, "last_error": match.last_error, "expected": expected_forms(match)}
    answer = {**dead_letter_line(match), **errors, "value": value}
    say(answer, as_json=as_json, table=lambda: table_of(("", ""), [(name, _cell(v)) for name, v in answer.items()]))


def _kind_of(dead_letter: str) -> str:
    """Return the kind of a dead letter by its id; end the command if the text is no id."""
    if _ID.fullmatch(dead_letter) is None:
        fail(
            f"{dead_letter!r} is not the id of a dead letter. Give one that `meterbridge dlq list` prints, for example events/0/17.",
            2,
        )
    return dead_letter.partition("/")[0]


def _not_open(dead_letter: str) -> NoReturn:
    closed = "it was requeued or dismissed, or the id is wrong; see `meterbridge dlq list`"
    fail(f"no dead letter {dead_letter} is open: {closed}.", 1)


def _nothing(settings: Settings, kind: str, filters: Filters) -> str:
    """Say that a selection has matched nothing, and what is open besides: its value may be misspelt."""
    deployment = deployment_of(settings)
    others = list(found_letters(deployment, BOTH, Filters())) if (kind, filters) != (BOTH, Filters()) else []
    hint = nobody(settings, filters.customer, {dead_letter.customer for dead_letter in others})
    if not others:
        behind = uncounted_now(deployment).sentence
        return f"There are no open dead letters.{hint}{f' {behind}.' if behind else ''}"
    return f"No open dead letter matches; {numbered(len(others), 'other is', 'others are')} open.{hint}"


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {text}" for name, text in value.items())
    return "" if value is None else str(value)


class _Action(NamedTuple):
    """An action and the selected dead letters.

    Fields:
        trust_log_from, trusted_us: the option as it was given, for the audit line, and as `caught_up` takes it.
    """

    name: str
    kind: str
    filters: Filters
    comment: str
    limit: int
    trust_log_from: str | None = None
    trusted_us: int | None = None
    accept: str = ""

    @property
    def accepted(self) -> tuple[str, ...]:
        return (self.accept,) if self.accept else ()


def requeue(
    reason: str,
    customer: str,
    since: str | None,
    until: str | None,
    kind: str,
    dead_letter: str,
    comment: str,
    trust_log_from: str | None,
    limit: int,
    accept: str,
    *,
    in_lago: bool | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run `meterbridge dlq requeue`."""
    if accept not in ("", *ACCEPTABLE):
        fail(f"--accept: {accept!r} cannot be overruled. Give {', '.join(ACCEPTABLE)}.", 2)
    filters = _filters(reason, customer, since, until, dead_letter, in_lago)
    trusted_us = None if trust_log_from is None else moment_us(trust_log_from, "--trust-log-from")
    action = _Action("requeue", kind, filters, comment, limit, trust_log_from, trusted_us, accept)
    _act(action, dry_run=dry_run, as_json=as_json)


def dismiss(
    reason: str,
    customer: str,
    since: str | None,
    until: str | None,
    kind: str,
    dead_letter: str,
    comment: str,
    limit: int,
    *,
    in_lago: bool | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run `meterbridge dlq dismiss`."""
    if not comment and not dry_run:
        fail(
            "--comment is needed, because the dead letters are never billed then. Say why, for example --comment 'test traffic'.",
            2,
        )
    filters = _filters(reason, customer, since, until, dead_letter, in_lago)
    if replace(filters, may_be_in_lago=None) == Filters() and not dry_run:
        fail(
            "say which dead letters: --reason, --customer, --since, --until or --id. To dismiss all of them: --until 0s.",
            2,
        )
    _act(_Action("purge", kind, filters, comment, limit), dry_run=dry_run, as_json=as_json)


def _check_reason(deployment: Deployment, kind: str, reason: str) -> None:
    """Refuse an unknown reason before anything is done or printed: an empty result would look like success."""
    _check_kind(kind)
    if sentence := unknown_reason(deployment, kind, reason):
        fail(sentence, 2)


def _check_kind(kind: str) -> None:
    if kind not in (BOTH, *KINDS):
        fail(f"--kind: {kind!r} is not known. Give events, calls or both.", 2)


def _act(action: _Action, *, dry_run: bool, as_json: bool) -> None:
    if action.filters.dead_letter:
        _kind_of(action.filters.dead_letter)
    with one_sentence():
        settings = settings_of_command()
        deployment = deployment_of(settings)
        _check_reason(deployment, action.kind, action.filters.reason)
        if dry_run:
            dead_letters = list(_matching(deployment, action.kind, action.filters, action.limit))
            if action.filters.dead_letter and not dead_letters:
                _not_open(action.filters.dead_letter)
            sums = _sums(dead_letters)
            done = asyncio.run(_previewed(action, settings, dead_letters))
        else:
            dead_letters, sums = [], {}
            done = asyncio.run(_acted(action, settings, quiet=as_json))
        some = any(getattr(done, name) for name in _OUTCOMES)
        nothing = "" if some or as_json else _nothing(settings, action.kind, action.filters)
        if dry_run:
            answer = {"dry_run": True, "count": len(dead_letters), "by_reason": sums, **_counts(done)}
            say(answer, as_json=as_json, table=lambda: nothing or _dry_run(action, dead_letters, sums, done))
        else:
            say(_counts(done), as_json=as_json, table=lambda: nothing or _done_text(done))


def _counts(done: RequeueResult) -> dict[str, Any]:
    counts = {name: getattr(done, name) for name in (*_OUTCOMES, "dismissed_maybe_at_lago")}
    return counts | {"reasons": done.reasons}


def _done_text(done: RequeueResult) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(done.reasons.items()))
    text = ", ".join(f"{getattr(done, name)} {name}" for name in _OUTCOMES)
    if done.unaccepted:
        options = " or ".join(f"`--accept {reason}`" for reason in ACCEPTABLE)
        text += f"\nUnaccepted: look at them with `meterbridge dlq show`. To bill them, add {options}."
    if done.dismissed_maybe_at_lago:
        events = numbered(done.dismissed_maybe_at_lago, "dismissed event")
        text += f"\n{events} may be in Lago, which then bills this usage: look for the transaction ids there."
    if done.impossible:
        which = next(iter(done.reasons)) if len(done.reasons) == 1 else "REASON"
        text += f"\nImpossible as they are ({reasons}): send a corrected call, or give them up: `meterbridge dlq dismiss --reason {which} --comment WHY`."
        text += f"\n{meanings(done.reasons)}".rstrip()
    return text


def _dry_run(
    action: _Action, dead_letters: list[DeadLetter], sums: dict[str, dict[str, Any]], done: RequeueResult
) -> Any:
    table = _table(dead_letters[:20], sums, len(dead_letters))
    text = f"Dry run, nothing was written: {_done_text(done)}"
    if done.dismissed_maybe_at_lago and action.filters.may_be_in_lago is None:
        text += " `--not-in-lago` leaves them out."
    return Group(table, text)


async def _previewed(action: _Action, settings: Settings, dead_letters: list[DeadLetter]) -> RequeueResult:
    if action.name == "purge":
        return RequeueResult(
            dismissed=len(dead_letters), dismissed_maybe_at_lago=sum(map(may_be_in_lago, dead_letters))
        )
    with optional_database(settings) as database:
        judge = RequeueJudge(deployment_of(settings), database, action.trusted_us)
        return await judge.preview(dead_letters, action.accepted)


async def _acted(action: _Action, settings: Settings, *, quiet: bool) -> RequeueResult:
    deployment = deployment_of(settings)
    name, kind, filters, comment = action.name, action.kind, action.filters, action.comment
    with optional_database(settings) as database:
        async with requeuer(deployment, CommandProducer(deployment.kafka), database, action.trusted_us) as at:
            dead_letters = await asyncio.to_thread(lambda: list(_matching(deployment, kind, filters, action.limit)))
            if filters.dead_letter and not dead_letters:
                _not_open(filters.dead_letter)
            more = {"trust_log_from": action.trust_log_from or "", "accept": action.accept}
            audit_id = await at.audit(name, dead_letters, kind, filters, comment, **more)
            with progress(name, len(dead_letters), quiet=quiet) as on_progress:
                if name == "purge":
                    return await at.dismiss(dead_letters, audit_id, on_progress)
                return await at.requeue(dead_letters, audit_id, on_progress, action.accepted)


def _matching(deployment: Deployment, kind: str, filters: Filters, limit: int | None = None) -> Iterator[DeadLetter]:
    _check_kind(kind)
    return found_letters(deployment, kind, filters, limit)


def _filters(
    reason: str,
    customer: str,
    since: str | None,
    until: str | None,
    dead_letter: str = "",
    in_lago: bool | None = None,
) -> Filters:
    if since is not None and until is not None:
        span_us(since, until, ("--since", "--until"))
    return Filters(reason, customer, moment_ms(since, "--since"), moment_ms(until, "--until"), dead_letter, in_lago)


def dead_letter_line(dead_letter: DeadLetter) -> dict[str, Any]:
    """Return what is shown of a dead letter; `call` is the request id of a rejected call, or its call id. Whether Lago
    may have it is None for a rejected call.
    """
    return {
        "dead_letter": dead_letter.id,
        "died_at": to_iso(dead_letter.at_ms * 1000),
        "reason": dead_letter.reason,
        "customer": dead_letter.customer,
        "transaction_id": dead_letter.transaction_id,
        "usd": None if dead_letter.usd is None else plain(dead_letter.usd),
        "attempts": dead_letter.attempts,
        "requeued": dead_letter.requeued,
        _MAY_BE_IN_LAGO: may_be_in_lago(dead_letter) if dead_letter.kind == EVENTS else None,
        "call": next(iter(dead_letter.call_ids), ""),
    }


def _sums(dead_letters: Iterable[DeadLetter]) -> dict[str, dict[str, Any]]:
    by_reason: dict[str, list[DeadLetter]] = {}
    for dead_letter in dead_letters:
        by_reason.setdefault(dead_letter.reason, []).append(dead_letter)
    return {
        reason: {"count": len(same), "usd": plain(total(dead_letter.usd or ZERO for dead_letter in same))}
        for reason, same in sorted(by_reason.items())
    }


def _table(dead_letters: list[DeadLetter], by_reason: dict[str, dict[str, Any]], count: int, doubtful: int = 0) -> Any:
    sums = ", ".join(f"{one['count']} {reason} ({one['usd']} USD)" for reason, one in by_reason.items())
    lines = [dead_letter_line(dead_letter) for dead_letter in dead_letters]
    for line in lines:  # the table would be too wide: `dlq show` and --json have it
        del line[_MAY_BE_IN_LAGO]
    table = table_of_lines(lines, f"{numbered(count, 'dead letter')}: {sums}")
    below = [meanings(by_reason)] if meanings(by_reason) else []
    if doubtful:
        events = numbered(doubtful, "event")
        below.append(f"Of these, {events} may be in Lago: `--may-be-in-lago` shows them, `--not-in-lago` the others.")
    return Group(table, *below)
