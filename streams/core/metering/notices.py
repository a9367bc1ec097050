"""The reports of a step to the operator in addition to its counts: amounts and names, for metrics and log lines."""

from dataclasses import dataclass, field
from decimal import Decimal

from schemas.ledger import Sum

#: Reason: a copy of a settled call has another cost. It counts as a duplicate, and is stored for inspection.
COST_DIFFERS = "cost_differs"
#: Reason: a poll counts as a repeat, because it cannot be distinguished from one
#: (streams/core/metering/call_meaning.py).
ASSUMED_REPEAT = "assumed_repeat"
#: The most characters of a sender's name that are kept.
_NAME_LENGTH = 80


@dataclass(slots=True)
class Notices:
    """The notices of one step.

    Fields:
        doubtful: calls and dollars by reason: `implausible_cost`, `cost_differs`, `assumed_repeat`.
        unpriced: number of calls by model.
        unknown_types: number of calls by call types that this release does not know.
    """

    doubtful: dict[str, Sum] = field(default_factory=dict)
    unpriced: dict[str, int] = field(default_factory=dict)
    unknown_types: dict[str, int] = field(default_factory=dict)

    def doubt(self, reason: str, cost: Decimal) -> None:
        """Count a doubtful call of `cost` dollars."""
        self.doubtful[reason] = self.doubtful.get(reason, Sum()) + Sum(1, cost)

    def without_price(self, model: str) -> None:
        """Count a call to a model that has no price in LiteLLM."""
        count(self.unpriced, model)

    def of_unknown_type(self, call_type: str) -> None:
        """Count a call whose type is not in the table."""
        count(self.unknown_types, call_type)


def count(counts: dict[str, int], name: str) -> None:
    """Add one to `name`, which is truncated to the allowed length."""
    name = name[:_NAME_LENGTH]
    counts[name] = counts.get(name, 0) + 1
