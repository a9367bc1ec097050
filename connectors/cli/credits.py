"""`meterbridge credits`: grant and take back credits, and look at accounts."""

import asyncio
import re
import shlex
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from secrets import token_hex
from typing import Any, Final, NoReturn

import typer

from connectors.cli.base import duration_s, say, table_of, table_of_lines
from connectors.cli.optional_database import ask_database
from connectors.cli.running import one_sentence, settings_of_command
from connectors.cli.sentences import fail, print_error
from connectors.config.connections import deployment_of, postgres_url
from connectors.credits.idempotency_keys import key_of_parts
from connectors.operations.audit_record import audited
from connectors.operations.known_ids import known_account
from connectors.operations.sender import CommandProducer
from connectors.postgres.credits import add_credits, balance_of, checked, transactions_of
from schemas.errors import Rejected, Unavailable
from schemas.money import parse_amount, plain
from schemas.plurals import numbered

_ACCOUNT: Final = re.compile(r"(user|org):.{1,255}", re.DOTALL)
_KINDS: Final = ("bonus", "purchase", "refund", "adjustment")
_MAX_PAYMENT: Final = 255
_MOST: Final = Decimal(10**12)
_DAY: Final = timedelta(days=1)


def grant(
    account: str,
    amount: str,
    kind: str,
    expires: str,
    key: str,
    comment: str,
    *,
    overdraft: bool,
    new: bool,
    as_json: bool,
) -> None:
    """Run `meterbridge credits grant`."""
    if kind not in _KINDS:
        fail(f"--type: {kind!r} is not a type of credits. Give one of {', '.join(_KINDS)}.", 2)
    dollars = _dollars(amount)
    if dollars < 0 and kind != "adjustment":
        fail(
            f"AMOUNT: {amount} is below 0, and only an adjustment may be below 0; money that was paid back is `credits refund`.",
            2,
        )
    ends = _expiry(expires)
    _check_account(account)
    if not new:
        _check_known(account)
    _move("grant", account, dollars, kind, key, comment, ends, may_overdraw=overdraft, as_json=as_json)


def refund(account: str, amount: str, payment: str, key: str, comment: str, *, overdraft: bool, as_json: bool) -> None:
    """Run `meterbridge credits refund`."""
    dollars = _dollars(amount)
    if dollars < 0:
        fail(f"AMOUNT: {amount} is below 0. Give the amount without its sign: `credits refund` takes it back.", 2)
    if len(payment.encode()) > _MAX_PAYMENT:
        fail(
            f"--of: a payment is named by at most {_MAX_PAYMENT} bytes. Give its id at Stripe, or the `transaction_id` of the purchase.",
            2,
        )
    _check_account(account)
    with one_sentence():
        if asyncio.run(balance_of(postgres_url(settings_of_command()), account)) is None:
            _no_account(account)
    _move("refund", account, -dollars, "refund", key, comment, None, payment, may_overdraw=overdraft, as_json=as_json)


def balance(account: str, *, as_json: bool) -> None:
    """Run `meterbridge credits balance`."""
    _check_account(account)
    with one_sentence():
        found = asyncio.run(balance_of(postgres_url(settings_of_command()), account))
    if found is None:
        _no_account(account)
    grants = [_shown(grant) for grant in found.pop("grants")]
    row = _shown(found)
    say({**row, "grants": grants}, as_json=as_json, table=lambda: table_of_lines([row]))
    if grants and not as_json:
        say({}, as_json=False, table=lambda: table_of_lines(grants, "Grants, in the order in which they are used"))


def transactions(account: str, limit: int, offset: int, *, as_json: bool) -> None:
    """Run `meterbridge credits transactions`."""
    _check_account(account)
    with one_sentence():
        url = postgres_url(settings_of_command())
        found = asyncio.run(transactions_of(url, account, limit, offset))
        if not found and asyncio.run(balance_of(url, account)) is None:
            _no_account(account)
    rows = [_shown(row) for row in found]
    say(
        {"transactions": rows},
        as_json=as_json,
        table=lambda: table_of_lines(rows) if rows else "There are no transactions.",
    )


def check(*, as_json: bool) -> None:
    """Run `meterbridge credits check`."""
    with one_sentence():
        done = asyncio.run(checked(postgres_url(settings_of_command())))
    heads = ("problem", "place", "expected", "found")
    wrong = [(problem, place, plain(expected), plain(found)) for problem, place, expected, found in done.wrong]
    answer = {
        "accounts": done.accounts,
        "transactions": done.transactions,
        "wrong": [dict(zip(heads, row, strict=True)) for row in wrong],
    }
    sentence = f"All credits balance: {numbered(done.accounts, 'account')}, {numbered(done.transactions, 'ledger transaction')}."
    say(answer, as_json=as_json, table=lambda: table_of(heads, wrong) if wrong else sentence)
    if wrong:
        raise typer.Exit(1)


def _check_known(account: str) -> None:
    """End the command if neither the account is known nor the org or the customer that it would belong to."""
    with one_sentence():
        found = ask_database(settings_of_command(), lambda database: known_account(database, account))
    if not found.known:
        meant = f": {found.meant}" if found.meant else "."
        fail(f"no account, org or customer {account} is known{meant} To make a new account, add --new.", 1)


def _no_account(account: str) -> NoReturn:
    fail(f"no account {account}: no credits were ever granted to it. Is the id right, and is it a user or an org?", 1)


def _move(
    action: str,
    account: str,
    dollars: Decimal,
    kind: str,
    key: str,
    comment: str,
    ends: datetime | None,
    payment: str = "",
    *,
    may_overdraw: bool,
    as_json: bool,
) -> None:
    """Write the audit line, then make the change."""
    _check_account(account)
    name = key or token_hex(8)
    note = {name: text for name, text in (("comment", comment), ("refund_of", payment)) if text}
    with one_sentence():
        settings = settings_of_command()
        url, deployment = postgres_url(settings), deployment_of(settings)
        target = {"account": account, "type": kind, "key": name} | ({"refund_of": payment} if payment else {})
        audit_id = audited(
            deployment,
            CommandProducer(deployment.kafka),
            f"credits.{action}",
            target,
            reason=comment,
            count=1,
            cost_usd=dollars,
        )
        own_key = key_of_parts("command", name)
        try:
            added = asyncio.run(
                add_credits(url, account, dollars, kind, own_key, ends, note, may_overdraw=may_overdraw)
            )
        except (Unavailable, KeyboardInterrupt):
            print_error(
                f"meterbridge: the credits may have been moved. Repeat with --key {shlex.quote(name)}, which moves them once."
            )
            raise
    answer = {
        "account": account,
        "amount": plain(dollars),
        "balance": plain(added.new_balance),
        "overdraft": plain(added.overdraft),
        "transaction_id": str(added.transaction_id),
        "key": name,
        "audit_id": audit_id,
    }
    say(answer, as_json=as_json, table=lambda: table_of_lines([answer]))


def _expiry(expires: str) -> datetime | None:
    """Return when credits expire: at the end of the last day, UTC, so that a command that is repeated on the same day
    gets the same moment.
    """
    if not expires:
        return None
    after = timedelta(seconds=duration_s(expires, "--expires", 1))
    ends = datetime.now(UTC) + after
    if after < _DAY:
        return ends
    return ends.replace(hour=0, minute=0, second=0, microsecond=0) + _DAY


def _check_account(account: str) -> None:
    if _ACCOUNT.fullmatch(account) is None:
        fail(f"{account!r} is not an account. Give user:ID or org:ID, for example org:acme.", 2)


def _dollars(text: str) -> Decimal:
    try:
        dollars = parse_amount(text)
    except Rejected:
        fail(f"AMOUNT: {text!r} is not a number. Give dollars, for example 25 or 0.50.", 2)
    if not dollars or abs(dollars) >= _MOST:
        fail(f"AMOUNT: {text} is not possible. Give dollars other than 0 and below {_MOST}, for example 25 or 0.50.", 2)
    return dollars


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {name: _cell(value) for name, value in row.items()}


def _cell(value: object) -> object:
    match value:
        case Decimal():
            return plain(value)
        case datetime():
            return f"{value:%Y-%m-%dT%H:%M:%SZ}"
        case None | str():
            return value
        case _:
            return str(value)
