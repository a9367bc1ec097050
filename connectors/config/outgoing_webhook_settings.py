"""The environment variables of outgoing webhooks; `settings.py` reads them."""

import binascii
from base64 import b64decode
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, SecretStr, ValidationInfo, field_validator

from connectors.config.types import Dollars, Listed, Secrets, http_url, out_of
from schemas.webhooks import EVENT_TYPES

#: Bytes of a signing key, as Standard Webhooks asks for them.
_LEAST_KEY, _MOST_KEY = 24, 64


def _urls(values: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    """Addresses; they may have a query, and are secrets as many services put a token into them."""
    for value in values:
        http_url(value.get_secret_value().partition("?")[0])
    if len({value.get_secret_value() for value in values}) < len(values):
        raise ValueError("should be different addresses")
    return values


def _signing(values: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    for value in values:
        prefix, _, encoded = value.get_secret_value().rpartition("whsec_")
        try:
            size = len(b64decode(encoded, validate=True))
        except (binascii.Error, ValueError):
            size = 0
        if prefix or not value.get_secret_value().startswith("whsec_") or not _LEAST_KEY <= size <= _MOST_KEY:
            raise ValueError(
                'should be whsec_ and 24 to 64 random bytes in Base64: echo "whsec_$(openssl rand -base64 32)"'
            )
    return values


class OutgoingWebhookSettings(BaseModel):
    """A part of `Settings`."""

    outgoing_webhook_allow_http: bool = Field(
        False,
        description="`true`: addresses of outgoing webhooks may begin with `http://`; only in a network of your own.",
    )
    outgoing_webhook_secrets: Annotated[Secrets, AfterValidator(_signing)] = Field(
        (),
        description="Secrets that sign [outgoing webhooks](webhooks.md), `whsec_...`; the newest first, several separated by commas while one is "
        "replaced: a message is then signed with each.",
    )
    outgoing_webhook_urls: Annotated[Secrets, AfterValidator(_urls)] = Field(
        (),
        description="Addresses that get [outgoing webhooks](webhooks.md), `https://`, several separated by commas. Unset = none is sent.",
    )
    outgoing_webhook_events: Annotated[tuple[str, ...], Field(min_length=1), Listed, out_of(EVENT_TYPES)] = Field(
        EVENT_TYPES, description="Events that are announced, separated by commas."
    )
    outgoing_webhook_held_usd: Dollars = Field(
        Decimal(100),
        description="Held usage of a customer is announced again at this sum of dollars, and each time that it has doubled.",
    )
    outgoing_webhook_low_balance_usd: Annotated[Decimal, Field(ge=0, le=1_000_000, allow_inf_nan=False)] = Field(
        Decimal(5),
        description="Credits of an account below this many dollars are announced as low; 0 = only when they are used up.",
    )

    @field_validator("outgoing_webhook_urls")
    @classmethod
    def _are_signed_and_encrypted(cls, values: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
        if values and not info.data.get("outgoing_webhook_secrets"):
            raise ValueError("need OUTGOING_WEBHOOK_SECRETS: without a signature a receiver cannot know the sender")
        plain = any(not value.get_secret_value().startswith("https://") for value in values)
        if plain and not info.data.get("outgoing_webhook_allow_http"):
            raise ValueError("should begin with https:// (or set OUTGOING_WEBHOOK_ALLOW_HTTP)")
        return values
