"""How the product treats what arrived: each call's decision, customer and cost, by scenario."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cache
from typing import Any

import msgspec

from connectors.kafka.producer import Record
from schemas.records import Rejection
from schemas.wire import RawRecord
from streams.core.metering.decisions import BILLED
from streams.core.metering.normalise import normalise
from tests.litellm_matrix.scenario import SCENARIOS, key_of
from tests.support.calls import Raw
from tests.support.folding import Partition

#: Of what nothing says whose it is: only an unknown key makes such a call.
_STRANGER = "unknown-key"
_LONG_HEX = re.compile(r"[0-9a-f]{32,}")


@cache
def _hashes() -> dict[str, str]:
    """Each scenario by the hash of its key."""
    return {hashlib.sha256(key_of(name).encode()).hexdigest(): name for name in SCENARIOS}


def rows_of(records: Sequence[Record]) -> dict[str, list[dict[str, Any]]]:
    """One row for each record, by scenario: the meter's decisions, in order of arrival."""
    partition = Partition()
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for topic, key, value, *_ in records:
        if not topic.endswith("raw"):
            refused = msgspec.json.decode(value, type=Rejection)
            rows[_STRANGER].append({"decision": f"refused: {refused.reason}"})
            continue
        record = msgspec.json.decode(value, type=RawRecord)
        stamp_ms = record.received_at // 1000
        before, counted = len(partition.steps), len(partition.enriched)
        partition.take(Raw(0, stamp_ms, (key or "").encode(), value))
        decisions = [name for step in partition.steps[before:] for name, count in step.decisions.items() if count]
        reasons = [
            msgspec.json.decode(result)["reason"] for step in partition.steps[before:] for _, result in step.rejected
        ]
        row = _row(record, key or "", decisions, reasons)
        if len(partition.enriched) > counted:  # what is billed may be less than what the call reports
            row["cents"] = plain(Decimal(partition.enriched[-1]["cost_usd"]) * 100)
        rows[_scenario_of(record)].append(row)
    return {name: sorted(found, key=_order) for name, found in rows.items()}


def _order(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(row.get(name, "")) for name in ("call_type", "status", "decision", "cents", "model"))


def billed_cents(rows: Sequence[Mapping[str, Any]]) -> Decimal:
    """The sum of what is billed."""
    return sum((Decimal(row["cents"]) for row in rows if row["decision"] in BILLED), Decimal(0))


def _scenario_of(record: RawRecord) -> str:
    call = record.call
    metadata = call.metadata
    named = [call.key_alias, call.model_group]
    if metadata is not None:
        named = [metadata.user_api_key_alias, *named, _hashes().get(str(metadata.user_api_key_hash))]
    of_a_batch = (call.call_type or "").endswith("file_content")  # LiteLLM reads a batch's answers in its own name
    return next((str(name) for name in named if name in SCENARIOS), "batch" if of_a_batch else _STRANGER)


def _row(record: RawRecord, customer: str, decisions: Sequence[str], reasons: Sequence[str]) -> dict[str, Any]:
    usage = normalise(record, customer, Decimal("0.000000000001"))
    decision = "+".join(sorted(decisions)) or "none"
    named = customer if len(customer) < 80 else f"{customer[:40]}… ({len(customer)} characters)"
    owner = f"{record.id_kind} {_LONG_HEX.sub('<hash>', named)}".strip()
    row = {
        "decision": f"{decision}: {', '.join(reasons)}" if reasons else decision,
        "call_type": usage.call_type,
        "status": usage.status,
        "cents": plain(usage.cost * 100),
        "tokens": [usage.tokens_input, usage.tokens_output, usage.cached_tokens, usage.reasoning_tokens],
        "model": usage.model,
        "customer": owner,
        "id": _meaning_of_id(usage.request_id, usage.call_id),
        "call_id": "the client's" if usage.call_id == "chosen" else "LiteLLM's" if usage.call_id else "none",
    }
    if usage.note:
        row["note"] = usage.note
    return row


def plain(amount: Decimal) -> str:
    """Cents with six decimals, without needless zeros."""
    text = f"{amount:.6f}"
    return text.rstrip("0").rstrip(".") or "0"


def _meaning_of_id(request_id: str, call_id: str) -> str:
    if "_cache_hit" in request_id:
        return "cache hit"
    if request_id and request_id == call_id:
        return "call id"
    known = ("chatcmpl-", "cmpl-", "msg_", "resp_", "batch_", "video_", "file-", "rr-", "modr-", "always")
    for head in known:
        if request_id.startswith(head):
            return "provider's" if len(request_id) < 100 else "sealed"
    return "other" if request_id else "none"
