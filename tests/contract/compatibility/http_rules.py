"""Changes of the HTTP API that break its callers, found from two OpenAPI documents."""

from collections.abc import Iterator
from typing import Final

from tests.contract.compatibility.breaks import Break, Json
from tests.contract.compatibility.schema_rules import Side, changes

_METHODS: Final = ("get", "post", "put", "patch", "delete")
_REFUSED: Final = "A request that is right today is refused."
_MISREAD: Final = "A program that reads the answer breaks or misreads it."


def http_breaks(old: Json, new: Json) -> Iterator[Break]:
    """A request that is valid today stays valid, and its answer can be read as before."""
    for path, methods in old["paths"].items():
        for method in (word for word in methods if word in _METHODS):
            subject = f"http {method.upper()} {path}"
            now = new["paths"].get(path, {}).get(method)
            if now is None:
                yield Break(subject, "is gone", "Programs that call it are answered with 404 or 405.")
                continue
            yield from _parameters(subject, methods[method], now, old, new)
            yield from _body(subject, methods[method], now, old, new)
            yield from _answers(subject, methods[method], now, old, new)
            yield from _access(subject, methods[method], now)


def _parameters(subject: str, was: Json, now: Json, old: Json, new: Json) -> Iterator[Break]:
    before = {(one["in"], one["name"]): one for one in was.get("parameters", ())}
    after = {(one["in"], one["name"]): one for one in now.get("parameters", ())}
    for (kind, name), parameter in before.items():
        place = f"{subject} {kind} {name}"
        if (kind, name) not in after:
            yield Break(place, "is no longer read", _REFUSED)
            continue
        other = after[kind, name]
        for inner, what in changes(parameter["schema"], other["schema"], Side(old, new, we_write=False), place):
            yield Break(inner, what, _REFUSED)
        if other.get("required") and not parameter.get("required"):
            yield Break(place, "must now be sent", _REFUSED)
    for (kind, name), parameter in after.items():
        if parameter.get("required") and (kind, name) not in before:
            yield Break(f"{subject} {kind} {name}", "is new and must be sent", _REFUSED)


def _body(subject: str, was: Json, now: Json, old: Json, new: Json) -> Iterator[Break]:
    before, after = was.get("requestBody", {}), now.get("requestBody", {})
    if after.get("required") and not before.get("required"):
        yield Break(f"{subject} body", "must now be sent", _REFUSED)
    for kind, content in before.get("content", {}).items():
        if kind not in after.get("content", {}):
            yield Break(f"{subject} body {kind}", "is no longer read", _REFUSED)
            continue
        schemas = content.get("schema", {}), after["content"][kind].get("schema", {})
        for place, what in changes(*schemas, Side(old, new, we_write=False), f"{subject} body"):
            yield Break(place, what, _REFUSED)


def _answers(subject: str, was: Json, now: Json, old: Json, new: Json) -> Iterator[Break]:
    for status, answer in was["responses"].items():
        other = now["responses"].get(status)
        if other is None:
            yield Break(f"{subject} {status}", "is never answered any more", _MISREAD)
            continue
        for kind, content in answer.get("content", {}).items():
            if kind not in other.get("content", {}):
                yield Break(f"{subject} {status} {kind}", "is no longer answered", _MISREAD)
                continue
            schemas = content.get("schema", {}), other["content"][kind].get("schema", {})
            for place, what in changes(*schemas, Side(old, new, we_write=True), f"{subject} {status}"):
                yield Break(place, what, _MISREAD)


def _access(subject: str, was: Json, now: Json) -> Iterator[Break]:
    """Each way of authentication stays: a list of alternatives, each with its scopes; an empty list means none is
    needed.
    """
    before, after = was.get("security") or [{}], now.get("security") or [{}]
    for way in before:
        if not any(_lets_in(other, way) for other in after):
            shown = (
                ", ".join(f"{scheme} {' '.join(scopes)}".strip() for scheme, scopes in way.items()) or "no credential"
            )
            yield Break(
                f"{subject} security", f"is refused with {shown}", "A program with the key of today gets 401 or 403."
            )


def _lets_in(needed: Json, given: Json) -> bool:
    """Whether a caller with `given` fulfils `needed`."""
    return all(scheme in given and set(scopes) <= set(given[scheme]) for scheme, scopes in needed.items())
