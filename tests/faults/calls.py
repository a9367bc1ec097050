"""Calls as LiteLLM would send them, each with its expected bill. Nothing here uses the product's own arithmetic.

The text of a cost comes from binary arithmetic, including its noise; the owed amount is that text as a Decimal, rounded
once to twelve places of a dollar.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from random import Random

from tests.model.rounding import EXACT, cost_of_call

CUSTOMERS = tuple(f"kunde-ä-{n:02d}" if n % 10 == 7 else f"customer-{n:02d}" for n in range(40))
#: Model, provider, dollars for a token in and out.
_MODELS = (
    ("openai/gpt-4o", "openai", 2.5e-06, 1e-05),
    ("claude-sonnet-4", "anthropic", 3e-06, 1.5e-05),
    ("gpt-4o-mini", "azure", 1.5e-07, 6e-07),
)
#: `COST_DECIMALS` of the processes that are killed.
_DECIMALS = 12

#: (litellm_call_id, id, status): no two calls have all three in common.
CallKey = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Call:
    """One call.

    Fields:
        text: as posted, JSON.
        cost: dollars at twelve places.
        billed: whether it must be billed.
    """

    key: CallKey
    customer: str
    text: str
    cost: Decimal
    tokens: int
    billed: bool


@dataclass(slots=True)
class Sum:
    """The owed or billed sums of a subscription."""

    calls: int = 0
    tokens: int = 0
    cents: Decimal = Decimal(0)

    def add(self, tokens: int, dollars: Decimal) -> None:
        self.calls += 1
        self.tokens += tokens
        self.cents = EXACT.add(self.cents, EXACT.multiply(dollars, Decimal(100)))


@dataclass(slots=True)
class Owed:
    """The sent usage.

    Fields:
        calls: every call: (customer, cost, tokens, billed) by its key.
        metered: every event of another metric: (org, properties) by its transaction id.
    """

    calls: dict[CallKey, tuple[str, Decimal, int, bool]] = field(default_factory=dict)
    metered: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)

    def note(self, call: Call) -> None:
        self.calls[call.key] = (call.customer, call.cost, call.tokens, call.billed)

    def billed(self) -> Iterable[tuple[CallKey, tuple[str, Decimal, int, bool]]]:
        return ((key, call) for key, call in self.calls.items() if call[3])

    def by_subscription(self, subscription_of: Mapping[str, str]) -> dict[str, Sum]:
        """Return what each subscription owes."""
        sums = {subscription: Sum() for subscription in subscription_of.values()}
        for _, (customer, cost, tokens, _) in self.billed():
            sums[subscription_of[customer]].add(tokens, cost)
        return sums

    def dollars(self) -> Decimal:
        """Return the dollars that all customers owe together."""
        total = Decimal(0)
        for _, (_, cost, _, _) in self.billed():
            total = EXACT.add(total, cost)
        return total


def owed_for(literal: str) -> Decimal:
    """Return the dollars that a cost's text means."""
    return cost_of_call(Decimal(literal), _DECIMALS)


class Calls:
    """An endless sequence of calls; the same seed gives the same sequence, except for the times."""

    def __init__(self, seed: int) -> None:
        self._random = Random(f"calls/{seed}")
        self._number = 0
        self._again: list[Call] = []

    def make(self, now_s: float) -> Call:
        """Return the next call; it ended `now_s` seconds after 1970, or up to half a minute earlier."""
        random = self._random
        if self._again:
            return self._again.pop()
        self._number += 1
        call_id, request_id = f"call-{self._number}", f"chatcmpl-{self._number}"
        kind = random.random()
        end_s = now_s - (random.uniform(0, 30) if random.random() < 0.05 else random.uniform(0, 0.5))
        customer = random.choice(CUSTOMERS)
        if kind < 0.02:  # a failed attempt, and its repetition with the same call id
            self._again.append(self._call((call_id, request_id + "-b", "success"), customer, end_s, 1))
            return self._call((call_id, request_id, "failure"), customer, end_s - 1, 0)
        if kind < 0.04:  # a stream that was cut upstream: a failure with a cost
            return self._call((call_id, request_id, "failure"), customer, end_s, 1)
        if kind < 0.06:
            return self._call((call_id, request_id, "success"), customer, end_s, 1, cache_hit=True)
        if kind < 0.08:
            return self._call((call_id, request_id, "success"), customer, end_s, 0)
        if kind < 0.10:  # a provider that gives all its responses the same id
            return self._call((call_id, "cmpl-0", "success"), customer, end_s, 1)
        return self._call((call_id, request_id, "success"), customer, end_s, 1)

    def _call(self, key: CallKey, customer: str, end_s: float, price: int, *, cache_hit: bool = False) -> Call:
        random = self._random
        model, provider, price_in, price_out = random.choice(_MODELS)
        tokens_in, tokens_out = random.randint(1, 4000), random.randint(1, 900)
        literal = repr(price * (tokens_in * price_in + tokens_out * price_out))
        cost, tokens = owed_for(literal), tokens_in + tokens_out
        call_id, request_id, status = key
        fields = {
            "id": request_id,
            "litellm_call_id": call_id,
            "status": status,
            "call_type": "acompletion",
            "model": model,
            "custom_llm_provider": provider,
            "prompt_tokens": tokens_in,
            "completion_tokens": tokens_out,
            "total_tokens": tokens,
            "end_user": customer,
            "cache_hit": cache_hit,
        }
        start_s = end_s - random.uniform(0.1, 3)
        if random.random() < 0.5:
            flat = {"request_id": request_id, "spend": literal, "startTime": _iso(start_s), "endTime": _iso(end_s)}
            text = json.dumps({**fields, **flat})
        else:
            principal = {"user_api_key_hash": "5b3bfae8", "user_api_key_team_id": "team-acme"}
            slp = {"startTime": start_s, "endTime": end_s, "metadata": principal, "response_cost": 0}
            prompt = {"messages": [{"role": "user", "content": "hello " * random.randint(1, 40)}]}
            text = json.dumps({**fields, **slp, **prompt}).replace('"response_cost": 0', f'"response_cost": {literal}')
        return Call(key, customer, text, cost, tokens, bool(cost) and not cache_hit)


def _iso(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat()
