"""Checks the signature of Stripe's webhooks with the official library: HMAC-SHA256 over the time and the raw body.

Source: https://docs.stripe.com/webhooks/signature
"""

from collections.abc import Sequence
from typing import Final

from schemas.errors import Rejected

SIGNATURE: Final = "Stripe-Signature"
#: The largest age of the signed time, seconds. Stripe signs each delivery of an event again.
TOLERANCE_S: Final = 300


def check_signed(header: str) -> None:
    """Check that there is a signature; this needs no body. Raises: Rejected: `unsigned`: there is none."""
    if not header.strip():
        raise Rejected("unsigned", f"the header {SIGNATURE} is missing")


def check_signature(header: str, body: bytes, secrets: Sequence[str]) -> None:
    """Check that one of `secrets` signed `body` at most `TOLERANCE_S` ago. All secrets are tried, so the time does not show which one matches.

    Raises:
        Rejected: `unsigned`; `bad_signature`: no secret signed it, it is too old, or the body is not an event.
    """
    check_signed(header)
    matches = [_is_signed(header, body, secret) for secret in secrets]
    if not any(matches):
        raise Rejected("bad_signature", "no secret of STRIPE_WEBHOOK_SECRET signed this body within 5 minutes")


def _is_signed(header: str, body: bytes, secret: str) -> bool:
    import stripe

    try:
        stripe.Webhook.construct_event(body, header, secret, TOLERANCE_S)
    except stripe.SignatureVerificationError:
        return False
    except (
        ValueError,
        TypeError,
        AttributeError,
    ):  # the body is not UTF-8, not JSON or not an object, or the header is not ASCII
        return False
    return True
