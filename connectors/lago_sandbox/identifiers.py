"""Lago's ids: UUIDs that are the same after the journal is replayed."""

from collections import Counter
from uuid import UUID, uuid5

_NAMESPACE = UUID("5f0b7c0e-4b57-4c0e-9f3e-6d6574657262")

ORGANIZATION = str(uuid5(_NAMESPACE, "organization"))


def event_id(subscription: str | None, transaction_id: str) -> str:
    """Return the id of an event in the Postgres store."""
    return str(uuid5(_NAMESPACE, f"event {subscription} {transaction_id}"))


def invoice_id(subscription: str, at_us: int) -> str:
    """Return the id of the invoice of a subscription at one moment."""
    return str(uuid5(_NAMESPACE, f"invoice {subscription} {at_us}"))


class Identifiers:
    """Gives the n-th id of each kind."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def new(self, kind: str) -> str:
        """Return the next id of this kind."""
        self._counts[kind] += 1
        return str(uuid5(_NAMESPACE, f"{kind} {self._counts[kind]}"))
