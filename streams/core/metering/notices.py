"""What a step reports to the operator beside its counts: amounts and names, for metrics and log lines."""

from dataclasses import dataclass, field
from decimal import Decimal

from schemas.ledger import Sum

#: A copy of a settled call has another cost: it counts as a duplicate and is kept aside for inspection.
COST_DIFFERS = "cost_differs"
#: A poll counts as a repeat because nothing distinguishes it from one (streams/core/metering/call_meaning.py).
ASSUMED_REPEAT = "assumed_repeat"
#: The longest name of a sender that is kept, characters.
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
    """Add one to `name`, which is cut to the length that a log line may have."""
    name = name[:_NAME_LENGTH]
    counts[name] = counts.get(name, 0) + 1
