"""Compares two JSON Schemas from the side of the reader, or the writer, of the values that they describe.

What this product writes may not get wider: a reader would meet what it does not expect. What it reads may not get
narrower: a sender would be refused. In both directions a property stays, and keeps its meaning when it is absent. A new
property is compatible, unless a sender must send it. Source: https://json-schema.org/draft/2020-12/json-schema-validation
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

Json = dict[str, Any]
#: Bounds that admit less the greater they are, and those that admit less the smaller they are.
_LEAST: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_MOST: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_EXACT: Final = ("pattern", "format", "multipleOf", "uniqueItems", "contentMediaType")
_MISSING: Final = object()


class Side(NamedTuple):
    """Two documents that contain the schemas and their parts, and the role of the other party of the contract."""

    old: Json
    new: Json
    we_write: bool


def changes(old: Json, new: Json, side: Side, place: str) -> Iterator[tuple[str, str]]:
    """Place and description of every incompatible change from `old` to `new`."""
    yield from _compared(old, new, side, place, set())


def _compared(old: Json, new: Json, side: Side, place: str, seen: set[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    pair = (str(old.get("$ref", "")), str(new.get("$ref", "")))
    if all(pair):
        if pair in seen:
            return
        seen = seen | {pair}
    before, after = list(_alternatives(old, side.old)), list(_alternatives(new, side.new))
    held_by, holding = (before, after) if side.we_write else (after, before)
    for one in holding:
        peer = _peer(one, held_by)
        if peer is None:
            kind = _kind(one)
            yield place, f"may now be {kind}" if side.we_write else f"may no longer be {kind}"
            continue
        was, is_now = (peer, one) if side.we_write else (one, peer)
        yield from _values(was, is_now, side, place)
        yield from _members(was, is_now, side, place, seen)
    default = old.get("default", _MISSING), new.get("default", _MISSING)
    if default[0] is not _MISSING and default[0] != default[1]:
        now = "has no default" if default[1] is _MISSING else f"is {default[1]!r}"
        yield place, f"where it is absent it was {default[0]!r}, and now {now}"


def _alternatives(schema: Json, document: Json) -> Iterator[Json]:
    """Schemas of one type each; a value fits exactly one of them."""
    while "$ref" in schema:
        target: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        schema = {**target, **{name: value for name, value in schema.items() if name != "$ref"}}
    if len(schema.get("allOf", ())) == 1:
        schema = {**schema["allOf"][0], **{name: value for name, value in schema.items() if name != "allOf"}}
        yield from _alternatives(schema, document)
        return
    for word in ("anyOf", "oneOf"):
        if word in schema:
            for part in schema[word]:
                yield from _alternatives(part, document)
            return
    kinds = schema.get("type", ())
    if isinstance(kinds, str):
        yield schema
    else:
        yield from ({**schema, "type": kind} for kind in kinds or ("",))


def _kind(schema: Json) -> str:
    return str(schema.get("type") or "any value")


def _peer(one: Json, others: list[Json]) -> Json | None:
    """The alternative that a value of `one` could match; of several, the one with the most in common."""
    fitting = [other for other in others if _holds(other, one)]
    return max(fitting, key=lambda other: _likeness(one, other), default=None)


def _holds(outer: Json, inner: Json) -> bool:
    kinds = (outer.get("type", ""), inner.get("type", ""))
    return kinds[0] in ("", kinds[1]) or kinds == ("number", "integer")


def _likeness(one: Json, other: Json) -> int:
    shared = one.get("properties", {}).keys() & other.get("properties", {}).keys()
    return 1000 * (one.get("title", "") == other.get("title", "")) + len(shared) + (one == other)


def _values(old: Json, new: Json, side: Side, place: str) -> Iterator[tuple[str, str]]:
    """Closed lists and bounds."""
    outer, inner = (old, new) if side.we_write else (new, old)
    was, is_now = _listed(old), _listed(new)
    if gone := [value for value in was or () if is_now is not None and value not in is_now]:
        yield place, f"is never {_shown(gone)} any more" if side.we_write else f"may no longer be {_shown(gone)}"
    if side.we_write and was is not None:
        more = None if is_now is None else [value for value in is_now if value not in was]
        if more is None or more:
            yield place, "may now be any value" if more is None else f"may now be {_shown(more)}"
    if not side.we_write and was is None and is_now is not None:
        yield place, f"may now only be {_shown(is_now)}"
    for word in (*_LEAST, *_MOST, *_EXACT):
        bound, inner_bound = outer.get(word), inner.get(word)
        if bound is None or bound == inner_bound:
            continue
        fits = inner_bound is not None and (
            (word in _LEAST and inner_bound >= bound) or (word in _MOST and inner_bound <= bound)
        )
        if not fits:
            yield place, f"its {word} was {old.get(word, 'not set')} and is {new.get(word, 'not set')}"


def _listed(schema: Json) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _shown(values: list[Any]) -> str:
    return ", ".join(str(value) for value in values)


def _members(old: Json, new: Json, side: Side, place: str, seen: set[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Properties, other properties, and items."""
    was, is_now = old.get("properties", {}), new.get("properties", {})
    for name, schema in was.items():
        inner = f"{place}.{name}"
        if name in is_now:
            yield from _compared(schema, is_now[name], side, inner, seen)
        else:
            yield inner, "is gone" if side.we_write else "is no longer read"
    needed, needs = set(old.get("required", ())), set(new.get("required", ()))
    for name in sorted((needed - needs) & is_now.keys() if side.we_write else needs - needed):
        yield f"{place}.{name}", "may now be absent" if side.we_write else "must now be sent"
    others, now = old.get("additionalProperties", True), new.get("additionalProperties", True)
    if isinstance(others, dict) and isinstance(now, dict):
        yield from _compared(others, now, side, f"{place}.*", seen)
    elif not side.we_write and others is not False and now is False:
        yield place, "may no longer have other members"
    if isinstance(old.get("items"), dict) and isinstance(new.get("items"), dict):
        yield from _compared(old["items"], new["items"], side, f"{place}[]", seen)
    parts, new_parts = old.get("prefixItems", []), new.get("prefixItems", [])
    if len(parts) != len(new_parts):
        yield place, f"had {len(parts)} places and has {len(new_parts)}"
    for number, (one, other) in enumerate(zip(parts, new_parts, strict=False)):
        yield from _compared(one, other, side, f"{place}[{number}]", seen)
