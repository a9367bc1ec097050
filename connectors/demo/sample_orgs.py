"""The demo's orgs, which Lago bills, and the LiteLLM customers that each of them pays for."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Org:
    """One billed org; `id` is Lago's external customer id, `subscription` the external id of its only one."""

    id: str
    name: str
    customers: tuple[str, ...]

    @property
    def subscription(self) -> str:
        """External id."""
        return f"{self.id}-sub"


_ORGS: Final = {
    "Atlas": ("atlas-web", "atlas-ops"),
    "Borealis": ("borealis-app", "borealis-etl"),
    "Cobalt": ("cobalt-chat", "cobalt-batch"),
    "Dune": ("dune-search", "dune-labs"),
}

#: Customers without a mapping when their first calls arrive, and the fraction of the run after which they are mapped.
MAPPED_LATE: Final = {"cobalt-batch": 0.4, "dune-labs": 0.6}

CUSTOMERS: Final = tuple(customer for customers in _ORGS.values() for customer in customers)


def orgs_of(run: str) -> tuple[Org, ...]:
    """Return the orgs of one run, with ids that no other run has, because a real Lago keeps them."""
    return tuple(Org(f"demo-{run}-{name.lower()}", name, customers) for name, customers in _ORGS.items())
