"""What an operator should hear of a step, beside its counts: amounts and names, which metrics and log lines are made of."""

from dataclasses import dataclass, field
from decimal import Decimal

from schemas.ledger import Sum
from schemas.money import add

#: A copy of a settled call that tells another cost: a duplicate, and kept aside to be looked at.
COST_DIFFERS = "cost_differs"
#: A poll that is taken for a repeat because nothing tells it from one (streams/core/metering/call_meaning.py).
ASSUMED_REPEAT = "assumed_repeat"
#: Longest name of a sender's that is kept.
_NAME_LENGTH = 80


@dataclass(slots=True)
class Notices:
    """Of one step.

    Fields:
        doubtful: calls and dollars by reason: `implausible_cost`, `cost_differs`, `assumed_repeat`.
        unpriced: number of calls by model.
        unknown_types: number of calls by call types that this release does not know.
    """

    doubtful: dict[str, Sum] = field(default_factory=dict)
    unpriced: dict[str, int] = field(default_factory=dict)
    unknown_types: dict[str, int] = field(default_factory=dict)

    def doubt(self, reason: str, cost: Decimal) -> None:
        """One call of `cost` dollars."""
        before = self.doubtful.get(reason, Sum())
        self.doubtful[reason] = Sum(before.calls + 1, add(before.cost, cost))

    def without_price(self, model: str) -> None:
        """One call to a model that LiteLLM has no price for."""
        count(self.unpriced, model)

    def of_unknown_type(self, call_type: str) -> None:
        """One call of a type that is not in the table."""
        count(self.unknown_types, call_type)


def count(counts: dict[str, int], name: str) -> None:
    """One more of `name`, which is cut to a length that a log line may have."""
    name = name[:_NAME_LENGTH]
    counts[name] = counts.get(name, 0) + 1
