"""Checks the stored provider keys: their age, and the secrets that they are encrypted under."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

from connectors.access.provider_keys.cipher import secret_id
from connectors.access.provider_keys.store import PostgresProviderKeys, SecretTotals
from connectors.config.connections import all_revealed, postgres_url
from connectors.config.settings import Settings
from connectors.doctor.catalogue import Finding
from connectors.postgres.pool import Database

PART: Final = "Users' provider keys"


async def judge_provider_keys(own: Settings) -> list[Finding]:
    """Return all findings. Raises: Unavailable: Postgres does not answer, or has no table of provider keys."""
    with Database(postgres_url(own), size=1) as database:
        totals = await PostgresProviderKeys(database).totals(datetime.now(UTC))
    return list(findings(totals, [secret_id(secret) for secret in all_revealed(own.provider_keys_secret)]))


def findings(totals: Iterable[SecretTotals], known: list[str]) -> Iterator[Finding]:
    """Yield the findings.

    Args:
        known: ids of the secrets in `PROVIDER_KEYS_SECRET`, the newest first.
    """
    found = list(totals)
    if due := sum(one.due for one in found):
        yield Finding("provider_keys_due", f"{due} of {sum(one.keys for one in found)} active provider keys are due.")
    if unknown := sum(one.keys for one in found if one.secret_id not in known):
        yield Finding(
            "provider_keys_unreadable", f"No secret of PROVIDER_KEYS_SECRET decrypts {unknown} provider keys."
        )
    if old := sum(one.keys for one in found if one.secret_id in known[1:]):
        yield Finding("provider_keys_old_secret", f"{old} provider keys are encrypted under an older secret.")
