"""Calls as LiteLLM reports them: by its callback, and in its database."""

from typing import Any

import msgspec

from schemas.moments import SECOND_US, to_iso
from tests.model.history import BackfilledJob, Call, Polled

#: The field that contains a customer's id of a kind.
_FIELDS = {"end_user": "end_user", "user": "user_id"}


def body_of(call: Call) -> bytes:
    """Return the body as LiteLLM's callback sends it."""
    return _encoded(call, f"call-{call.number}-{call.ended}", "acompletion", response_cost=call.cost, metadata={})


def poll_of(step: Polled, number: int) -> bytes:
    """A poll of a job has its own call id and times, and the job's `id`."""
    call = Call(step.job, step.at - 1, step.cost)
    return _encoded(call, f"poll-{number}", "aretrieve_batch", job_id(step.job), response_cost=call.cost, metadata={})


def row_of(call: Call) -> bytes:
    """The row in LiteLLM's database: times rounded to the millisecond, a cost that is never null."""
    started = {"startTime": to_iso((call.ended - 1) * SECOND_US + 1000)}
    return _encoded(call, f"call-{call.number}-{call.ended}", "acompletion", spend=call.cost or "0", **started)


def job_row_of(step: BackfilledJob) -> bytes:
    """A row about a job has the job's id with a suffix."""
    call = Call(step.job, step.at - 1, step.cost)
    return _encoded(call, "", "aretrieve_batch", f"{job_id(step.job)}_batch_cost", spend=call.cost or "0")


def job_id(job: int) -> str:
    """A batch id in a provider's form."""
    return f"batch_{job:024}"


def _encoded(call: Call, call_id: str, call_type: str, request_id: str = "", **fields: Any) -> bytes:
    named = {
        "team_id": f"team-{call.number % 2}",
        "user_id": f"user-{call.number % 2}",
        _FIELDS[call.kind]: call.customer,
    }
    whole, cached, written, output, reasoning = call.tokens
    if cached or written or reasoning:
        details = {"cached_tokens": cached, "cache_creation_tokens": written}
        counted = {"prompt_tokens_details": details, "completion_tokens_details": {"reasoning_tokens": reasoning}}
        fields["metadata"] = {**(fields.get("metadata") or {}), "usage_object": counted}
    if call.level:
        fields["metadata"] = {**(fields.get("metadata") or {}), "spend_logs_metadata": {"power_level": call.level}}
    element = {
        "id": request_id or f"chatcmpl-{call_id}",
        "litellm_call_id": call_id,
        "call_type": call_type,
        "status": "success",
        "model": call.model,
        "custom_llm_provider": "openai",
        "prompt_tokens": whole,
        "completion_tokens": output,
        "total_tokens": whole + output,
        "startTime": to_iso((call.ended - 1) * SECOND_US + 600),
        "endTime": to_iso(call.ended * SECOND_US),
        **named,
        **{
            name: msgspec.Raw(value.encode()) if name in ("response_cost", "spend") and value else value
            for name, value in fields.items()
        },
    }
    return msgspec.json.encode(element)
