"""What Lago did not do, and whether asking again with the same words may help.

Source of the bodies: `app/controllers/concerns/api_errors.rb` of lago-api.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar

import httpx
import msgspec

from schemas.errors import MeterbridgeError, Rejected, Unavailable

#: Asking again with the same words is pointless for these; every other failure may pass.
_WRONG_FOR_EVER = frozenset({400, 405, 413, 414, 415, 422})
#: Refusals of a 422 that have nothing to do with what was sent.
_MAY_PASS = frozenset({"lock_acquisition_failed", "provider_error", "third_party_error"})
_TOLD = 300


class LagoIntegrationError(MeterbridgeError):
    """Lago did not do what it was asked; always also `Unavailable` or `Rejected`.

    Attributes:
        status: HTTP status; 0 where no answer came, or nothing was asked.
        code: Lago's code, e.g. `plan_not_found`; `""` where it gave none.
        details: Lago's `error_details`, for a 422 fields to lists of codes; None where it gave none.
        retryable: whether the same request may succeed later.
    """

    retryable: ClassVar[bool]

    def __init__(self, reason: str, detail: str = "", *, status: int = 0, code: str = "", details: Any = None) -> None:
        super().__init__(reason, detail)
        self.status = status
        self.code = code
        self.details = details

    def says(self, field: str, code: str) -> bool:
        """Whether a 422 has this code on this field."""
        return isinstance(self.details, Mapping) and code in (self.details.get(field) or ())


class LagoUnavailable(LagoIntegrationError, Unavailable):
    """No answer (`connect`, `timeout`, `no_answer`), `bad_answer`, or a status that may pass (`http_<status>`)."""

    retryable = True


class LagoRejected(LagoIntegrationError, Rejected):
    """The request itself is refused: by Lago (`http_<status>`, with its code as detail), or by us before it is sent."""

    retryable = False


class _Refusal(msgspec.Struct):
    code: str = ""
    error_details: Any = None


def refusal(response: httpx.Response) -> LagoIntegrationError:
    """The error of an answer that is no success.

    A 404 is about what was asked for only where Lago itself says `<resource>_not_found`: a proxy's says nothing.
    """
    try:
        said = msgspec.json.decode(response.content, type=_Refusal)
    except msgspec.DecodeError:
        said = _Refusal()
    status = response.status_code
    missing = status == HTTPStatus.NOT_FOUND and is_missing(said.code)
    for_ever = missing or (status in _WRONG_FOR_EVER and said.code not in _MAY_PASS)
    kind = LagoRejected if for_ever else LagoUnavailable
    return kind(f"http_{status}", _words(said), status=status, code=said.code, details=said.error_details)


def is_missing(code: str) -> bool:
    """Whether Lago says by this code that it has no such thing; `resource_not_found` is about the path."""
    return code.endswith("_not_found") and code != "resource_not_found"


def _words(said: _Refusal) -> str:
    if isinstance(said.error_details, Mapping):
        fields = [
            f"{field} {', '.join(map(str, codes)) if isinstance(codes, list) else codes}"
            for field, codes in said.error_details.items()
        ]
        return f"{said.code}: {'; '.join(fields)}"[:_TOLD]
    return f"{said.code}: {said.error_details}"[:_TOLD] if said.error_details else said.code
