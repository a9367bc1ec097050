"""Sample calls: LiteLLM's StandardLoggingPayload as its proxy posts it, with the cost that must be billed.

`call.json` is a recorded body. A sample call has its own values for the members that differ between two calls.
"""

from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files
from random import Random
from typing import Any, Final, NamedTuple
from uuid import uuid4

import msgspec
from msgspec import Raw

from schemas.rounding import quantise, quantum
from streams.core.metering.decisions import BILLABLE, CACHE_HIT, FAILED_CALL, FAILED_WITH_COST

_RECORDED: Final = files(__package__).joinpath("call.json").read_bytes()
_UNIT: Final = quantum()


class SampleCall(NamedTuple):
    """One call: its JSON, the decision that is expected, and the cost to be billed (dollars, quantised as in the meter)."""

    customer: str
    body: bytes
    decision: str
    cost: Decimal


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of calls. `prices`: dollars for a token that is read, and for one that is written; `tokens`: their maxima."""

    weight: int
    decision: str
    model: str
    provider: str
    prices: tuple[float, float]
    tokens: tuple[int, int]
    call_type: str = "acompletion"
    cached: float = 0.0


_KINDS: Final = (
    _Kind(30, BILLABLE, "gpt-4o", "openai", (2.5e-06, 1e-05), (3000, 800)),
    _Kind(30, BILLABLE, "gpt-4o-mini", "openai", (1.5e-07, 6e-07), (4000, 900)),
    _Kind(16, BILLABLE, "claude-sonnet-4-5", "anthropic", (3e-06, 1.5e-05), (9000, 600), cached=0.7),
    _Kind(7, BILLABLE, "o4-mini", "openai", (1.1e-06, 4.4e-06), (1200, 4000)),
    _Kind(6, BILLABLE, "text-embedding-3-small", "openai", (2e-08, 0.0), (6000, 0), "aembedding"),
    _Kind(6, CACHE_HIT, "gpt-4o-mini", "openai", (0.0, 0.0), (400, 90)),
    _Kind(3, FAILED_CALL, "gpt-4o", "openai", (0.0, 0.0), (0, 0)),
    _Kind(2, FAILED_WITH_COST, "gpt-4o", "openai", (2.5e-06, 1e-05), (2000, 500)),
)
_WEIGHTS: Final = tuple(kind.weight for kind in _KINDS)


def sample_call(customer: str, ended_at: float, chance: Random) -> SampleCall:
    """Return a new call of `customer` that ended at `ended_at` (seconds since 1970), different from every other."""
    (kind,) = chance.choices(_KINDS, _WEIGHTS)
    read, written = (chance.randint(1, most) if most else 0 for most in kind.tokens)
    cost = _litellms_cost(read * kind.prices[0] + written * kind.prices[1])
    call = msgspec.json.decode(_RECORDED)
    _identify(call, kind, customer, ended_at, took_s=chance.uniform(0.05, 4.0))
    _count(call, read, written, round(read * kind.cached), cost)
    if kind.decision == CACHE_HIT:
        saved = _litellms_cost(read * 1.5e-07)
        call.update(cache_hit=True, id=f"{call['id']}_cache_hit{ended_at}", saved_cache_cost=Raw(saved.encode()))
    elif kind.decision in (FAILED_CALL, FAILED_WITH_COST):
        _fail(call, cut_off=kind.decision == FAILED_WITH_COST)
    return SampleCall(customer, msgspec.json.encode(call), kind.decision, quantise(Decimal(cost), _UNIT))


def _litellms_cost(product: float) -> str:
    """Return a cost as LiteLLM writes it. LiteLLM calculates with floats, and the noise in the last digits must be
    billed as it is.

    From here on the cost is a text, which is read as a Decimal.
    """
    return repr(product)


def _identify(call: dict[str, Any], kind: _Kind, customer: str, ended_at: float, took_s: float) -> None:
    name = f"{kind.provider}/{kind.model}"
    call.update(
        id=f"chatcmpl-{uuid4().hex[:28]}",
        litellm_call_id=str(uuid4()),
        trace_id=str(uuid4()),
        call_type=kind.call_type,
        model=name,
        model_group=kind.model,
        custom_llm_provider=kind.provider,
        end_user=customer,
        startTime=ended_at - took_s,
        endTime=ended_at,
        completionStartTime=ended_at,
        response_time=took_s,
    )
    call["metadata"]["user_api_key_end_user_id"] = customer
    call["response"].update(id=call["id"], model=kind.model, created=int(ended_at))
    call["hidden_params"]["litellm_model_name"] = call["model_map_information"]["model_map_key"] = name


def _count(call: dict[str, Any], read: int, written: int, cached: int, cost: str) -> None:
    """Set the token counts and the cost of a call. `cost`: dollars as the text of a JSON number."""
    counts = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    for place in (call, call["metadata"]["usage_object"], call["response"]["usage"]):
        place.update(counts)
    for usage in (call["metadata"]["usage_object"], call["response"]["usage"]):
        usage["prompt_tokens_details"]["cached_tokens"] = cached
    amount = Raw(cost.encode())
    call["response_cost"] = call["hidden_params"]["response_cost"] = amount
    call["cost_breakdown"].update(total_cost=amount, original_cost=amount)


def _fail(call: dict[str, Any], *, cut_off: bool) -> None:
    """Make a failed call: a stream that was cut off has a cost, a refused request has none."""
    said = "Connection error." if cut_off else "litellm.RateLimitError: Rate limit reached for gpt-4o"
    call.update(status="failure", id=call["litellm_call_id"], cache_hit=False, response={}, error_str=said)
    call["status_fields"]["llm_api_status"] = "failure"
    call["error_information"].update(
        error_code="" if cut_off else "429",
        error_class="APIConnectionError" if cut_off else "RateLimitError",
        error_message=said,
    )
