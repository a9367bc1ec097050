"""The types of the settings: they turn text of the environment into checked values.

No message contains the value, because it may be a secret in the wrong variable.
"""

import re
from decimal import Decimal
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, StringConstraints

from connectors.config.postgres_urls import connecting
from schemas.errors import Rejected
from streams.core.mapping.subscription_ids import check_template

DAY_S: Final = 86_400


def _listed(value: object) -> object:
    """Split a text at commas: `"a, b"` -> `("a", "b")`."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        is_complete = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        is_complete = False
    if not is_complete or parts.query or parts.fragment:
        raise ValueError("should be an address such as http://host:3000")
    return value.rstrip("/")


def _issuer(value: str) -> str:
    """Check the issuer. It is compared byte by byte, so a slash at its end stays."""
    http_url(value)
    return value


def _postgres_url(value: SecretStr) -> SecretStr:
    """Check the URL of Postgres. A text that is not a URL is reported when it is used, because most commands need no
    Postgres.
    """
    try:
        if "://" in value.get_secret_value():
            connecting(value.get_secret_value())
    except Rejected as error:
        raise ValueError(error.detail) from None
    return value


def _servers(value: str) -> str:
    servers = [server.strip() for server in value.split(",")]
    if not all(re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):\d{1,5}", server) for server in servers):
        raise ValueError("should be host:port, several separated by commas")
    return ",".join(servers)


def _dividing_a_day(value: int) -> int:
    if value and DAY_S % value:
        raise ValueError(f"should be 0, or divide the {DAY_S} seconds of a day")
    return value


def _id_template(value: str) -> str:
    try:
        check_template(value)
    except Rejected as error:
        raise ValueError("should be made of {org_id}, and of {plan_code} and {timestamp} if wanted") from error
    return value


def _networks(values: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(ip_network(value) for value in values)
    except ValueError:
        raise ValueError("should be addresses or networks such as 10.0.0.0/8, separated by commas") from None


def out_of(names: tuple[str, ...]) -> AfterValidator:
    """Return a validator: each value must be one of `names`, and no value may occur twice."""

    def check(values: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(values)) < len(values) or not set(values) <= set(names):
            raise ValueError(f"should be different names out of: {', '.join(names)}")
        return values

    return AfterValidator(check)


def _fernet_secrets(values: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    """Check that each secret is 32 bytes in URL-safe Base64, as Fernet requires."""
    texts = [value.get_secret_value() for value in values]
    for text in texts:
        if not re.fullmatch(r"[A-Za-z0-9_-]{43}=", text):
            raise ValueError("should be 32 random bytes in URL-safe Base64: openssl rand -base64 32 | tr '+/' '-_'")
    if len(set(texts)) < len(texts):
        raise ValueError("should be different secrets, the newest first")
    return values


Listed = BeforeValidator(_listed)
Upper = BeforeValidator(_upper)
Lower = BeforeValidator(_lower)
HttpUrl = Annotated[str, AfterValidator(http_url)]
PostgresUrl = Annotated[SecretStr, AfterValidator(_postgres_url)]
Issuer = Annotated[str, AfterValidator(_issuer)]
Servers = Annotated[str, AfterValidator(_servers)]
Prefix = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]*$", max_length=100)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=60)]
PodName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=240)]
SubscriptionIdTemplate = Annotated[str, AfterValidator(_id_template)]
MAX_PORT = 65_535
Port = Annotated[int, Field(ge=0, le=MAX_PORT)]
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
MaybeSeconds = Annotated[float, Field(ge=0, le=DAY_S, allow_inf_nan=False)]
WindowSeconds = Annotated[int, Field(ge=0), AfterValidator(_dividing_a_day)]
Secrets = Annotated[tuple[SecretStr, ...], Listed]
FernetSecrets = Annotated[tuple[SecretStr, ...], Listed, AfterValidator(_fernet_secrets)]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(lambda given: _networks(_listed(given)))]
Dollars = Annotated[Decimal, Field(gt=0, le=1_000_000, allow_inf_nan=False)]
BillOrSkip = Annotated[Literal["bill", "skip"], Lower]
