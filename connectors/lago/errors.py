"""Errors of requests to Lago. They say whether a repeat of the request may succeed.

Source of the bodies: `app/controllers/concerns/api_errors.rb` of lago-api.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar

import httpx
import msgspec

from schemas.decoding import UNDECODABLE
from schemas.errors import MeterbridgeError, Rejected, Unavailable
from streams.core.delivery.verdicts import NOT_LAGO, refusal_of

#: Statuses after which the same request fails again. Every other failure is temporary.
_WRONG_FOR_EVER = frozenset({400, 405, 413, 414, 415, 422})
#: Codes of a 422 that do not depend on the request.
_MAY_PASS = frozenset({"lock_acquisition_failed", "provider_error", "third_party_error"})
#: Statuses of a proxy's own page, or of an HTTPS port that gets plain HTTP (docs/errors.md, `not_lago`).
_NOT_LAGO = frozenset({400, 422})
_TOLD = 300
#: What to do, by Lago's code of a missing object. Lago itself says no more than the code.
_NEXT = {
    "plan_not_found": "GET /api/billing/plans lists its plans, `meterbridge lago setup` makes the usual ones",
    "customer_not_found": "POST /api/customers or `meterbridge import customers` makes a customer",
    "billable_metric_not_found": "`meterbridge lago setup` makes the metrics",
}


class LagoIntegrationError(MeterbridgeError):
    """A request to Lago failed. Each such error is also `Unavailable` or `Rejected`.

    Attributes:
        status: HTTP status; 0 if no response came, or nothing was sent.
        code: Lago's code, e.g. `plan_not_found`; `""` if it gave none.
        details: Lago's `error_details`: for a 422, lists of codes by field; None if it gave none.
        retryable: whether the same request may succeed later.
    """

    retryable: ClassVar[bool]

    def __init__(self, reason: str, detail: str = "", *, status: int = 0, code: str = "", details: Any = None) -> None:
        super().__init__(reason, detail)
        self.status = status
        self.code = code
        self.details = details

    def says(self, field: str, code: str) -> bool:
        """Return whether Lago's 422 has this code for this field."""
        codes = self.details.get(field) if isinstance(self.details, Mapping) else None
        return isinstance(codes, list) and code in codes


class LagoUnavailable(LagoIntegrationError, Unavailable):
    """A temporary failure: no response (`connect`, `timeout`, `no_answer`), a response that is not Lago's
    (`bad_answer`, `not_lago`), or a temporary status (`http_<status>`).
    """

    retryable = True


class LagoRejected(LagoIntegrationError, Rejected):
    """The request itself is refused, by Lago (`http_<status>`, with Lago's code in the detail) or by Meterbridge before
    it is sent.
    """

    retryable = False


def reason_of(error: MeterbridgeError) -> str:
    """Return Lago's own code, which says more than the HTTP status; without one, our reason."""
    return (error.code if isinstance(error, LagoIntegrationError) else "") or error.reason


def plan_not_found(plan_code: str) -> LagoRejected:
    """Return the error of a plan that Lago does not have, with the status and the code that Lago itself answers."""
    code = "plan_not_found"
    return LagoRejected("http_404", f"{code}: {_missing(code, repr(plan_code))}", status=404, code=code)


class _Said(msgspec.Struct):
    code: str = ""
    error_details: Any = None


def refusal(response: httpx.Response) -> LagoIntegrationError:
    """Return the error for a response that is not a success.

    Only Lago's own JSON proves that a request is wrong or that an object does not exist. Any other response, such as a
    page of a proxy, is temporary (`not_lago`). A 404 means a missing object only with the code `<resource>_not_found`.
    """
    status, body = response.status_code, response.content
    said = _said(body)
    refused = is_missing(said.code) if status == HTTPStatus.NOT_FOUND else status in _WRONG_FOR_EVER
    may_pass = not refused or said.code in _MAY_PASS
    is_lagos = refusal_of(status, body) is not None
    if not is_lagos and not may_pass and status in _NOT_LAGO:
        detail = f"HTTP {status} with {len(body)} bytes that are not Lago's answer"
        return LagoUnavailable(NOT_LAGO, detail, status=status)
    kind = LagoUnavailable if may_pass or not is_lagos else LagoRejected
    return kind(f"http_{status}", _words(said), status=status, code=said.code, details=said.error_details)


def _said(body: bytes) -> _Said:
    try:
        return msgspec.json.decode(body, type=_Said)
    except UNDECODABLE:
        return _Said()


def is_missing(code: str) -> bool:
    """Return whether this code of Lago means that the object does not exist; `resource_not_found` means that the path
    does not exist.
    """
    return code.endswith("_not_found") and code != "resource_not_found"


def _words(said: _Said) -> str:
    if isinstance(said.error_details, Mapping):
        fields = [
            f"{field} {', '.join(map(str, codes)) if isinstance(codes, list) else codes}"
            for field, codes in said.error_details.items()
        ]
        return f"{said.code}: {'; '.join(fields)}"[:_TOLD]
    more = said.error_details or (_missing(said.code) if is_missing(said.code) else "")
    return f"{said.code}: {more}"[:_TOLD] if more else said.code


def _missing(code: str, named: str = "") -> str:
    """Return the sentence of a code that `is_missing`. Args: named: the object's name; `""` = not known here."""
    what = code.removesuffix("_not_found").replace("_", " ")
    sentence = f"Lago has no {what} {named}" if named else f"Lago has no such {what}"
    return f"{sentence}: {_NEXT[code]}" if code in _NEXT else sentence
