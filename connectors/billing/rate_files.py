"""Reads and writes a file of the rate card: TOML in which every amount is text, so that no digit of money is ever a float.

docs/rates.md has the format. Each mistake is reported in one sentence with its place and the next step.
"""

import json
import tomllib
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from schemas.errors import Rejected
from schemas.moments import parse_us, to_iso
from schemas.money import parse_amount, plain
from schemas.rates import UNIT_PRICES, Entry, Factors, RateCard, check_card, check_places

#: The default factors of the power levels, for a card with the table `factors.power_level`.
POWER_LEVELS: Final = {"eco": Decimal("0.7"), "balanced": Decimal(1), "precision": Decimal("1.5")}
_AMOUNTS = ("markup_percent", *UNIT_PRICES, "minimum")
_MEMBERS = ("id", "effective_from", "currency", "price", "default", "factors")
_FACTORS = ("power_level", "team", "plan", "org")


class InvalidRateCard(ValueError):
    """The file is no valid rate card; the message says where, why, and what to do."""


def read_card(path: Path, places: int) -> RateCard:
    """Read the version in a file; `places`: `COST_DECIMALS`, to which a call's price is rounded. Raises: InvalidRateCard, OSError."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRateCard(f"{path}: the file is not UTF-8; save it in this encoding") from error
    try:
        card = card_of(text)
        check_places(card, places)
        return card
    except ValueError as error:
        raise InvalidRateCard(f"{path}: {error}") from None


def text_of(card: RateCard) -> str:
    """Return a version as the text of a file, which `card_of` reads as the same version."""
    head = {"id": card.id, "effective_from": to_iso(card.effective_from), "currency": card.currency}
    tables = [("", head), *(("[price]", _members(entry)) for entry in card.entries)]
    if card.default is not None:
        tables.append(("default", {name: text for name, text in _members(card.default).items() if name in _AMOUNTS}))
    if card.factors is not None:
        kinds = msgspec.structs.asdict(card.factors)
        named = [(f"factors.{kind}", _members(kinds[kind])) for kind in _FACTORS if kinds[kind]]
        tables += named or [("factors", {})]
    return "\n".join(_written(name, members) for name, members in tables)


def _members(source: Entry | Mapping[str, Decimal]) -> dict[str, str]:
    values = source if isinstance(source, Mapping) else msgspec.structs.asdict(source)
    return {
        name: plain(value) if isinstance(value, Decimal) else value
        for name, value in values.items()
        if value is not None
    }


def _written(table: str, members: Mapping[str, str]) -> str:
    lines = [
        f"{name if name.isascii() and name.isidentifier() else _quoted(name)} = {_quoted(text)}\n"
        for name, text in members.items()
    ]
    return "".join([f"[{table}]\n" if table else "", *lines])


def _quoted(text: str) -> str:
    """Return a text of TOML: that of JSON, but no raw DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def card_of(text: str) -> RateCard:
    """Read the version in a TOML text. Raises: InvalidRateCard."""
    try:
        tree = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidRateCard(f"the file is not valid TOML: {error}; docs/rates.md has an example") from error
    _known(tree, _MEMBERS, "the card")
    prices = tree.get("price", [])
    if not isinstance(prices, list) or not all(isinstance(price, dict) for price in prices):
        raise InvalidRateCard("price: begin each price with [[price]]")
    default = _table(tree, "default")
    card = RateCard(
        _text(tree, "id", "the card"),
        _moment(tree),
        currency=_text(tree, "currency", "the card") if "currency" in tree else "USD",
        entries=tuple(_entry(price, f"price {number}") for number, price in enumerate(prices, 1)),
        default=None if default is None else _entry(default, "default", ()),
        factors=_factors(tree),
    )
    try:
        check_card(card)
    except ValueError as error:
        raise InvalidRateCard(str(error)) from error
    return card


def _entry(price: Mapping[str, Any], where: str, names: tuple[str, ...] = ("model", "provider")) -> Entry:
    _known(price, (*names, *_AMOUNTS), where)
    if names and not any(name in price for name in names):
        raise InvalidRateCard(f'{where}: name a model or a provider; model = "*" matches every call')
    model, provider = (_text(price, name, where) if name in price else "*" for name in ("model", "provider"))
    return Entry(
        model, provider, **{name: _amount(price[name], f"{where}.{name}") for name in _AMOUNTS if name in price}
    )


def _factors(tree: Mapping[str, Any]) -> Factors | None:
    table = _table(tree, "factors")
    if table is None:
        return None
    _known(table, _FACTORS, "factors")
    found = {}
    for kind in _FACTORS:
        members = _table(table, kind, "factors.") or {}
        found[kind] = {name: _amount(factor, f"factors.{kind}.{name}") for name, factor in members.items()}
    if "power_level" in table:  # a client may choose its level, so a card without this table has no factor for it
        found["power_level"] = POWER_LEVELS | found["power_level"]
    return Factors(**found)


def _moment(tree: Mapping[str, Any]) -> int:
    value = tree.get("effective_from")
    if isinstance(value, datetime):
        value = value.isoformat()
    if not isinstance(value, str):
        raise InvalidRateCard('effective_from: write a time, for example effective_from = "2026-12-01T00:00:00Z"')
    try:
        return parse_us(value)
    except Rejected:
        raise InvalidRateCard(
            f'effective_from: {value!r} is not a time in ISO 8601; write for example "2026-12-01T00:00:00Z"'
        ) from None


def _amount(value: Any, where: str) -> Decimal:
    if not isinstance(value, str):
        raise InvalidRateCard(f'{where}: write the number as text, {where.rpartition(".")[2]} = "{value}"')
    try:
        return parse_amount(value)
    except Rejected:
        raise InvalidRateCard(f'{where}: {value!r} is not a plain decimal number; write for example "0.25"') from None


def _table(tree: Mapping[str, Any], name: str, prefix: str = "") -> Mapping[str, Any] | None:
    value = tree.get(name)
    if value is not None and not isinstance(value, dict):
        raise InvalidRateCard(f"{prefix}{name}: must be a table; begin it with [{prefix}{name}]")
    return value


def _text(tree: Mapping[str, Any], name: str, where: str) -> str:
    value = tree.get(name)
    if not isinstance(value, str):
        raise InvalidRateCard(f'{where}: {name} is missing or is not text; write {name} = "..."')
    return value


def _known(tree: Mapping[str, Any], names: tuple[str, ...], where: str) -> None:
    if unknown := sorted(tree.keys() - set(names)):
        raise InvalidRateCard(f"{where}: {unknown[0]!r} is unknown; allowed are {', '.join(names)}")
