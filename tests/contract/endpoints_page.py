"""Writes docs/endpoints.md from the OpenAPI document: `python -m tests.contract.endpoints_page > docs/endpoints.md`."""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from tests.contract.compatibility.breaks import Json
from tests.contract.compatibility.current import openapi

_ALSO: Final = re.compile(r"Needs the scope (`[a-z_:]+`) as well for ([^.]+)\.")
#: Who signs the webhooks that need no credential of ours.
_SIGNED: Final = {"/webhooks/lago": "Lago's signature", "/webhooks/stripe": "Stripe's signature"}

_INTRODUCTION: Final = """\
# Ports and endpoints

<!-- Written by `python -m tests.contract.endpoints_page` from the OpenAPI document; change the endpoint or that module instead. -->

| port | serves |
|---|---|
| 8080, `PORT` | webhooks; with `serve` alone the api as well |
| 3002, `API_PORT` | the api where it runs alone |
| 9090, `METRICS_PORT` | Prometheus, and of a worker [its health](containers.md#health); of several worker roles in one command each takes the next port |

`GET /openapi.json` and `GET /docs` describe the parameters, bodies and answers.
"""
_SENDERS: Final = """
## Usage and other webhooks

*A sender's credential* is one of `WEBHOOK_TOKEN` as bearer token, or `X-Webhook-Signature: sha256=<hex HMAC-SHA256 of the body under WEBHOOK_SECRET>`; [all forms](ingress.md#authentication).
A body is one element, an array, or one element per line; the answer comes when all of it is durable. Every path takes every [format](ingress.md#where).
"""
_ANSWERS: Final = """
What the webhooks of usage answer:

| status | means |
|---|---|
| 202 | stored. The body lists the elements that were rejected, each with its reason; one bad element does not affect the others |
| 400 | the body is not JSON |
| 401 | unknown sender |
| 403 | the address is not in `WEBHOOK_ALLOWED_IPS` |
| 413 | the body is larger than `MAX_BODY_BYTES` |
| 503 with `Retry-After` | send it again. Never 429: LiteLLM does not repeat after a 429 |

Errors are problem JSON (RFC 9457); the reasons of the management API are in [errors-api.md](errors-api.md).
"""
_MANAGEMENT: Final = """
## The management API

A caller has the scope by an API key or a user's token, as bearer token; `LITELLM_MASTER_KEY` has all of them ([access.md](access.md)). Below `/api/customers` and `/api/billing` Lago's own key is taken as well.
*Or a user*: a signed-in user needs no scope for what is the user's own.

Pages: [mapping](mapping.md), [organisations](orgs.md), [examples](api.md), [credits](credits.md), [provider keys](provider-keys.md), [analytics](analytics.md), [dead letters](stuck-usage.md#dead-letters).
"""
_OPEN: Final = """
## Open to all
"""


class _Row(NamedTuple):
    method: str
    path: str
    needs: str
    does: str


def endpoints_page() -> str:
    """The text of docs/endpoints.md."""
    result = openapi()
    rows = list(_rows(result))
    senders = [row for row in rows if row.needs in ("a sender's credential", *_SIGNED.values())]
    free = [row for row in rows if not row.needs]
    managed = [row for row in rows if row not in senders and row not in free]
    parts = (_INTRODUCTION, _SENDERS, _table(senders), _ANSWERS, _MANAGEMENT, _table(managed), _OPEN, _table(free))
    return "".join(parts)


def _rows(document: Json) -> Iterator[_Row]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            needs = _needs(path, method, operation)
            yield _Row(method.upper(), path, needs, operation["summary"].rstrip("."))


def _needs(path: str, method: str, operation: Json) -> str:
    """Who may call it. Raises KeyError if it changes something and names neither a credential nor a signature."""
    schemes = operation["security"]
    if any("webhookToken" in scheme for scheme in schemes):
        return "a sender's credential"
    scopes = sorted({scope for scheme in schemes for of in scheme.values() for scope in of})
    if not scopes:
        return "" if method == "get" else _SIGNED[path]
    also = "".join(f"; {scope} as well for {what}" for scope, what in _ALSO.findall(operation["description"]))
    return ", ".join(f"`{scope}`" for scope in scopes) + (", or a user" if {"oidc": []} in schemes else "") + also


def _table(rows: list[_Row]) -> str:
    needs = any(row.needs for row in rows)
    lines = ["", f"| endpoint |{' needs |' if needs else ''} does |", "|---|---|---|" if needs else "|---|---|"]
    lines += [
        f"| `{row.method} {row.path}` |{f' {row.needs} |' if needs else ''} {row.does.replace('|', '&#124;')} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(endpoints_page(), end="")  # printing is the purpose of the command
