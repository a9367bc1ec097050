"""The environment variables of the ingress: the webhooks that bring usage, and the spool; `settings.py` reads them."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ByteSize, Field

from connectors.config.types import Networks, Seconds, Secrets


class IngressSettings(BaseModel):
    """A part of `Settings`."""

    webhook_secret: Secrets = Field(
        (), description="HMAC-SHA256 secrets of signed webhooks; several, separated by commas, while one is rotated."
    )
    webhook_token: Secrets = Field(
        (), description="Bearer tokens of senders that cannot sign; several, separated by commas."
    )
    webhook_tolerance: Seconds = Field(
        300, description="How many seconds the time in a signature may differ from this server's clock."
    )
    webhook_timestamp_required: bool = Field(
        False,
        description="Refuse signatures of the body alone (`sha256=...`). They never expire, so a recorded request can be "
        "repeated after `DEDUPE_RETENTION_HOURS` and is billed again. `1` in deploy/.env.example.",
    )
    webhook_allowed_ips: Networks = Field(
        (), description="Addresses and networks that may send usage, separated by commas; empty = all."
    )
    webhook_rate_limit: float = Field(
        2000,
        ge=0,
        le=1_000_000,
        allow_inf_nan=False,
        description="Requests per second of each token or signing secret, with bursts of one second; above it the answer is "
        "503 ([why 2000](ingress.md#how-much)). 0 = no limit.",
    )
    allow_unauthenticated: bool = Field(
        False,
        description="Accept usage from anybody if no secret and no token is set: for trying out, or "
        "behind a proxy that authenticates.",
    )
    webhook_timeout: Seconds = Field(30, description="Time limit of one request to the ingress, in seconds.")
    max_body_bytes: Annotated[ByteSize, Field(ge=1024)] = Field(
        ByteSize(64 << 20),
        description="Largest request body, in bytes or as `64MiB`; a larger one is answered with 413.",
    )
    spool_path: Path | None = Field(
        None,
        description="File on a persistent volume that stores calls while Kafka does not answer; unset = 503 meanwhile.",
    )
    spool_max_bytes: Annotated[ByteSize, Field(ge=1 << 20)] = Field(
        ByteSize(1 << 30),
        description="Largest size of that file, in bytes or as `1GiB`; when it is full the answer is 503.",
    )
