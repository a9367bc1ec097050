"""Checks our own settings; pure."""

from collections.abc import Iterator
from typing import Final

from connectors.config.connections import revealed
from connectors.config.settings import Settings
from connectors.doctor.catalogue import Finding
from connectors.ingest.secret_strength import LEAST_BYTES

#: A batch of LiteLLM has up to 7.5 MB, and more while responses are slow.
LEAST_BODY_BYTES: Final = 16 << 20
LEAST_RETENTION_HOURS: Final = 24


def judge_own(own: Settings) -> list[Finding]:
    """Return all findings in the environment."""
    return [*_credentials(own), *_payers(own), *_limits(own), *_durability(own)]


def _credentials(own: Settings) -> Iterator[Finding]:
    if own.webhook_token:
        return
    if own.allow_unauthenticated:
        yield Finding("anybody_may_post", "ALLOW_UNAUTHENTICATED is set, and WEBHOOK_TOKEN is not.")
    elif own.webhook_secret:
        yield Finding("signatures_only", "WEBHOOK_SECRET is set, and WEBHOOK_TOKEN is not.")
    else:
        yield Finding("no_webhook_credentials", "Neither WEBHOOK_TOKEN nor WEBHOOK_SECRET is set.")


def _payers(own: Settings) -> Iterator[Finding]:
    if "end_user" in own.customer_id_fields:
        yield Finding("client_names_payer", f"CUSTOMER_ID_FIELDS is {','.join(own.customer_id_fields)}.")
    if own.webhook_secret and not own.webhook_timestamp_required:
        yield Finding("signatures_never_expire", "WEBHOOK_SECRET is set, and WEBHOOK_TIMESTAMP_REQUIRED is not.")
    if own.litellm_master_key is not None and len(revealed(own.litellm_master_key)) < LEAST_BYTES:
        yield Finding("short_master_key", f"LITELLM_MASTER_KEY is shorter than {LEAST_BYTES} characters.")


def _limits(own: Settings) -> Iterator[Finding]:
    if own.max_body_bytes < LEAST_BODY_BYTES:
        yield Finding("bodies_refused", f"MAX_BODY_BYTES is {own.max_body_bytes.human_readable()}.")
    if own.dedupe_retention_hours < LEAST_RETENTION_HOURS:
        yield Finding("dedupe_retention_short", f"DEDUPE_RETENTION_HOURS is {own.dedupe_retention_hours}.")


def _durability(own: Settings) -> Iterator[Finding]:
    if own.lago_api_key is None:
        yield Finding("lago_key_missing", "LAGO_API_KEY is not set.")
    if own.kafka_replication_factor == 1:
        yield Finding("one_copy", "KAFKA_REPLICATION_FACTOR is 1.")
    if own.spool_path is None:
        yield Finding("spool_unset", "SPOOL_PATH is not set.")
