"""`meterbridge rates`: check, put and show versions of the rate card; apply a version to counted calls as a test."""

from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import typer

from connectors.billing.rate_files import InvalidRateCard, read_card, text_of
from connectors.billing.rate_warnings import warnings_of
from connectors.cli.base import moment_us, say, span_us, table_of_lines
from connectors.cli.optional_database import ask_database
from connectors.cli.running import one_sentence, settings_of_command
from connectors.cli.sentences import fail
from connectors.config.connections import deployment_of
from connectors.operations.price_list import InvalidPriceList, PriceComparison, compared_with, read_prices
from connectors.operations.rate_cards import (
    StoredCards,
    check_put,
    dropped_factors,
    has_added_factors,
    known_cards,
    put_card,
)
from connectors.operations.rate_test import Changed, tried_on
from connectors.operations.sender import CommandProducer
from schemas.errors import Rejected
from schemas.moments import SECOND_US, to_iso
from schemas.money import ZERO, parse_amount, plain, total
from schemas.plurals import numbered
from schemas.rates import UNIT_PRICES, Entry, RateCard
from schemas.rounding import quantum
from streams.runtime import clock

_WORDS = {"per_second": "a second", "per_image": "an image", "per_request": "a request"}
T = TypeVar("T")


def check(file: Path, as_json: bool) -> None:
    """Run `meterbridge rates check`."""
    with one_sentence(InvalidRateCard, OSError):
        card = read_card(file, settings_of_command().cost_decimals)
    say(_as_object(card), as_json=as_json, table=lambda: meaning(card))


def put(file: Path, *, comment: str, back_date: bool, as_json: bool) -> None:
    """Run `meterbridge rates put`."""
    with one_sentence(InvalidRateCard, OSError):
        settings = settings_of_command()
        card = read_card(file, settings.cost_decimals)
        deployment, known = deployment_of(settings), known_cards(deployment_of(settings))
        lead_us, now_us = int(settings.mapping_delay_seconds * SECOND_US), clock.now_us()
        writes = check_put(card, known, now_us, lead_us, back_date=back_date)
        audit_id = ""
        if writes:
            audit_id = put_card(deployment, CommandProducer(deployment.kafka), card, known.with_id(card.id), comment)
    stored = known.with_id(card.id)
    replaced = stored or known.at(card.effective_from)
    dropped = dropped_factors(replaced, card) if replaced else []
    billed = card if writes or stored is None else stored
    answer = {**_as_object(billed), "written": writes, "audit_id": audit_id, "dropped_factors": dropped}
    does = f"Put, audit line {audit_id}" if writes else "Nothing to do: it is there already"
    lines = [
        f"{does}.",
        meaning(billed),
        *([_dropped(card, replaced, dropped, writes)] if dropped and replaced else []),
    ]
    say(answer, as_json=as_json, table=lambda: "\n".join(lines))


def show(at: str, *, as_file: bool, as_json: bool) -> None:
    """Run `meterbridge rates show`."""
    at_us = moment_us(at, "--at") if at else clock.now_us()
    with one_sentence():
        known = known_cards(deployment_of(settings_of_command()))
    now = known.at(at_us)
    if at or as_file:
        if now is None:
            fail(f"no rate card was in force at {to_iso(at_us)}: calls are billed at LiteLLM's cost.", 1)
        if as_file:
            say({}, as_json=False, table=lambda: text_of(now).rstrip("\n"))
            return
        say(_as_object(now), as_json=as_json, table=lambda: meaning(now))
        return
    lines = [_line(card, known, now) for card in known.cards]
    added = [
        card.id for card in known.cards if has_added_factors(card) and (card is now or card.effective_from > at_us)
    ]
    answer = {"rates": lines, "unreadable": list(known.unreadable), "default_power_levels": added}
    say(answer, as_json=as_json, table=lambda: _listed(lines, known, added))
    if known.unreadable:
        raise typer.Exit(1)


def try_on(file: Path, since: str, until: str, as_json: bool) -> None:
    """Run `meterbridge rates test`."""
    between = span_us(since, until)
    with one_sentence(InvalidRateCard, OSError):
        places = settings_of_command().cost_decimals
        card, unit = read_card(file, places), quantum(places)
        changed = ask_database(settings_of_command(), lambda database: tried_on(database, card, *between, unit))
    lines = [_change(one) for one in changed]
    sums: dict[str, Any] = {
        "calls": sum(one.calls for one in changed),
        "cost_usd": plain(total(one.cost for one in changed)),
        "billed_usd": plain(total(one.before for one in changed)),
        "would_be_usd": plain(total(one.after for one in changed)),
    }
    title = f"{numbered(sums['calls'], 'call')}, cost {sums['cost_usd']} USD: billed {sums['billed_usd']}, by {card.id} {sums['would_be_usd']} USD"
    say(
        {"rate": card.id, **sums, "customers": lines},
        as_json=as_json,
        table=lambda: table_of_lines(lines, title) if lines else "No call ended in that time.",
    )


def compare(prices: Path, since: str, until: str, bound: str, as_json: bool) -> None:
    """Run `meterbridge rates compare`."""
    between = span_us(since, until)
    try:
        share = parse_amount(bound)
    except Rejected:
        share = Decimal(-1)
    if share < 0:
        fail(f"--bound: {bound!r} is not a share. Give a number from 0, for example 0.01 for 1 %.", 2)
    with one_sentence(InvalidPriceList, OSError):
        listed = read_prices(prices)
        found = ask_database(settings_of_command(), lambda database: compared_with(database, listed, *between, share))
    lines = [_difference(one) for one in found.differs]
    answer = {"calls": found.calls, "unlisted": found.unlisted, "not_compared": found.skipped, "differs": lines}
    say(answer, as_json=as_json, table=lambda: _differences(found, lines))
    if lines:
        raise typer.Exit(1)


def meaning(card: RateCard) -> str:
    """Describe a rate card in words, with a line for each price and factor, and for what is probably not meant."""
    lines = [f"{card.id}: for calls that end at or after {to_iso(card.effective_from)}, in {card.currency}"]
    for number, entry in enumerate(card.entries, 1):
        lines.append(f"{number}. model {entry.model}, provider {entry.provider}: {_price(entry)}")
    lines.append(f"else: {_price(card.default or Entry())}")
    if card.factors is not None:
        for kind, factors in msgspec.structs.asdict(card.factors).items():
            lines += [f"x {plain(factor)} for {kind} {name}" for name, factor in factors.items()]
    return "\n".join([*lines, *(f"Warning: {sentence}." for sentence in warnings_of(card))])


def _price(entry: Entry) -> str:
    if entry.has_units:
        named = [(name, getattr(entry, name)) for name in UNIT_PRICES if getattr(entry, name) is not None]
        said = ", ".join(f"{plain(usd)} USD {_WORDS.get(name, f'per million {name} tokens')}" for name, usd in named)
    elif entry.markup_percent:
        sign = "+" if entry.markup_percent > 0 else "-"
        said = f"LiteLLM's cost {sign} {plain(abs(entry.markup_percent))} %"
    else:
        said = "LiteLLM's cost as it is"
    return said if entry.minimum is None else f"{said}, at least {plain(entry.minimum)} USD a call"


def _as_object(card: RateCard) -> dict[str, Any]:
    return {
        **msgspec.to_builtins(card),
        "effective_from": to_iso(card.effective_from),
        "meaning": meaning(card),
        "warnings": warnings_of(card),
    }


def _line(card: RateCard, known: StoredCards, now: RateCard | None) -> dict[str, Any]:
    until_us = known.until_us(card)
    return {
        "rate": card.id,
        "from": to_iso(card.effective_from),
        "until": None if until_us is None else to_iso(until_us),
        "in_force": "yes" if card is now else "no",
        "prices": len(card.entries),
        "factors": "yes" if card.factors else "no",
    }


def _dropped(card: RateCard, replaced: RateCard, dropped: list[str], writes: bool) -> str:
    """Say which factors of the version before are not in the file."""
    if not writes:
        return (
            f"The stored {card.id} keeps factors that this file does not name: {', '.join(dropped)}. An earlier release added "
            "them. To bill without them, put a new version."
        )
    return (
        f"Calls that it prices have no factor any more that {replaced.id} has: {', '.join(dropped)}. "
        "To keep one, write it into the file."
    )


def _listed(lines: list[dict[str, Any]], known: StoredCards, added: list[str]) -> Any:
    odd = f"Not readable, and passed by the meter: {', '.join(known.unreadable)}." if known.unreadable else ""
    if not lines:
        return f"There is no rate card: calls are billed at LiteLLM's cost. {odd}".strip()
    if added:
        odd += (
            f" {', '.join(added)}: the power levels eco x 0.7 and precision x 1.5 apply beside the other factors. An earlier "
            "release added them to each card with factors. To bill without them, put a new version."
        )
    return table_of_lines(lines, odd.strip())


def _change(one: Changed) -> dict[str, Any]:
    return {
        "customer": one.customer,
        "org": one.org_id,
        "calls": one.calls,
        "cost_usd": plain(one.cost),
        "billed_usd": plain(one.before),
        "would_be_usd": plain(one.after),
        "change_usd": plain(one.after - one.before),
    }


def _difference(one: Any) -> dict[str, Any]:
    return {
        "call": one.call,
        "customer": one.customer,
        "model": one.model,
        "cost_usd": plain(one.cost),
        "listed_usd": plain(one.listed),
        "ended_at": one.ended_at,
    }


def _differences(found: PriceComparison, lines: list[dict[str, Any]]) -> Any:
    rest = f"{numbered(found.calls, 'call')} compared; {sum(found.unlisted.values())} of models that the list lacks, {found.skipped} with prices that it states otherwise"
    if not lines:
        return f"No call differs: {rest}."
    off = total(
        (one.cost - one.listed for one in found.differs),
    )
    return table_of_lines(
        lines, f"{numbered(len(lines), 'call differs', 'calls differ')}, by {plain(off or ZERO)} USD together: {rest}."
    )
