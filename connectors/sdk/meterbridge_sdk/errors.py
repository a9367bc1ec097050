"""Errors of the SDK. The class says whether the same request may succeed later.

BillingError
├── BillingUnavailable       not now; the same request again is safe
└── BillingRejected          wrong; the same request again changes nothing
    ├── BillingUnauthorized  the API key is unknown, or may not do this
    └── UsageLimitReached    an org has used up one of its limits

`reason` is a stable code (lower-case words and underscores). docs/sdk-reference.md lists those of the SDK,
docs/errors-api.md those of Meterbridge's API. No message holds an API key, a prompt or a request body.
"""

from decimal import Decimal


class BillingError(Exception):
    """Base of every error that the SDK raises on purpose.

    Attributes:
        reason: a stable code.
        detail: a sentence for people; may be empty.
        status: the HTTP status of Meterbridge's response; 0 = there was no response.
        retryable: whether the same request may succeed later.
    """

    retryable = False

    def __init__(self, reason: str, detail: str = "", *, status: int = 0) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.status = status


class BillingUnavailable(BillingError):
    """Meterbridge did not answer, or cannot do it now. It is unknown whether the request took effect; repeating it is
    safe.
    """

    retryable = True


class BillingRejected(BillingError):
    """The request itself is refused, by Meterbridge or by the SDK before it is sent."""


class BillingUnauthorized(BillingRejected):
    """Meterbridge does not know the API key (`status` 401), or the key may not do this (403). Nothing was done.

    A new key may take half a second to be known to every process of Meterbridge.
    """


class UsageLimitReached(BillingRejected):
    """An org has used up one of its limits. Its `reason` is `limit_reached`.

    Attributes:
        limit: the limit's name, `tokens` for example.
        used: what the org has used in the running billing period.
        maximum: the limit's value.
    """

    def __init__(self, limit: str, used: Decimal, maximum: int) -> None:
        super().__init__("limit_reached", f"{limit}: {used} of {maximum} used in this billing period")
        self.limit = limit
        self.used = used
        self.maximum = maximum
