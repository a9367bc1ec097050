"""Recorded results: written by a run, read by the page, by the doctor's table and by the tests; and how two of them differ.

A version has two files: its results, and the calls that it posted without what they need not have (prompts, answers, errors).
"""

import gzip
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.litellm_matrix.run import Outcome
from tests.litellm_matrix.scenario import SCENARIOS

FOLDER = Path(__file__).parents[1] / "fixtures" / "litellm_versions"
#: Cents; LiteLLM counts the tokens of a stream itself where its provider does not say them.
TOLERANCE = Decimal("0.01")
_TOKENS_APART = 0.02
#: What of these arrives depends on moments; of the last one only in a version that loses calls there.
UNCERTAIN = frozenset({"race", "timeout"})
_UNCERTAIN_IF_LOSING = "outage"
#: Of a recorded call: what the ingress never reads, what is long, and what names a machine.
_DROPPED = (
    *("messages", "response", "model_map_information", "hidden_params", "model_parameters", "error_str", "api_base"),
    *(
        "error_information",
        "response_cost_failure_debug_info",
        "guardrail_information",
        "requester_ip_address",
        "user_agent",
        "request_tags",
        "cost_breakdown",
    ),
)
_KEPT_METADATA = ("usage_object", "used_client_oauth_token", "is_silent_experiment", "spend_logs_metadata")
#: Reads of a response, whose answer says which response it is.
_READS = ("get_responses", "aget_responses")


def slim(element: Any) -> Any:
    """A posted call as it is recorded."""
    if not isinstance(element, dict):
        return element
    kept = {name: value for name, value in element.items() if name not in _DROPPED}
    metadata = kept.get("metadata")
    if isinstance(metadata, dict):
        kept["metadata"] = {
            name: value
            for name, value in metadata.items()
            if name in _KEPT_METADATA or (name.startswith("user_api_key_") and value is not None)
        }
    answer = element.get("response")
    if element.get("call_type") in _READS and isinstance(answer, dict):
        outputs = [{"id": each.get("id")} for each in answer.get("output") or [] if isinstance(each, dict)]
        kept["response"] = {"id": answer.get("id"), "created_at": answer.get("created_at"), "output": outputs}
    return kept


def write(version: str, outcome: Outcome) -> None:
    """Record a run. A run of some scenarios replaces those of the same version and keeps the others' results, not their calls."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{version}.json"
    known = json.loads(path.read_text())["results"] if path.exists() else {}
    results = {
        name: {**known, **outcome.results}[name] for name in SCENARIOS if name in known or name in outcome.results
    }
    whole = {"litellm": version, "received_us": outcome.received_us, "results": results}
    path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    if len(outcome.results) < len(SCENARIOS):
        return
    calls = [{"at": endpoint, "call": slim(each)} for endpoint, found in outcome.elements.items() for each in found]
    lines = "".join(json.dumps(each, separators=(",", ":")) + "\n" for each in calls if _counts(each))
    (FOLDER / f"{version}.calls.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))


def _counts(posted: Mapping[str, Any]) -> bool:
    """Whether a call was posted to the endpoint by which its scenario is judged; several callbacks of the main proxy
    report each call.
    """
    call = posted["call"] if isinstance(posted["call"], dict) else {}
    alias = str((call.get("metadata") or {}).get("user_api_key_alias") or call.get("key_alias") or "")
    return bool(posted["at"] == (SCENARIOS[alias].endpoint if alias in SCENARIOS else "main"))


def versions() -> list[str]:
    """The recorded versions, the oldest first."""
    return sorted((path.stem for path in FOLDER.glob("*.json")), key=numbers)


def numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version, for comparison."""
    return tuple(int(part) for part in version.split("."))


def recorded(version: str) -> dict[str, dict[str, Any]]:
    """The results of a version, by scenario."""
    results: dict[str, dict[str, Any]] = json.loads((FOLDER / f"{version}.json").read_text())["results"]
    return results


def recorded_calls(version: str) -> tuple[list[dict[str, Any]], int]:
    """What a version posted (`at` which endpoint, `call`), and when the last of it was received, microseconds since 1970 UTC."""
    lines = gzip.decompress((FOLDER / f"{version}.calls.jsonl.gz").read_bytes()).decode().splitlines()
    return [json.loads(line) for line in lines], json.loads((FOLDER / f"{version}.json").read_text())["received_us"]


def compared(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[str]]:
    """The differences in meaning, by scenario; a scenario without a recording differs."""
    found = {
        name: differences(before[name], result) if name in before else ["it is not recorded"]
        for name, result in after.items()
        if not _uncertain(name, before.get(name))
    }
    return {name: lines for name, lines in found.items() if lines}


def _uncertain(name: str, before: Mapping[str, Any] | None) -> bool:
    if name == _UNCERTAIN_IF_LOSING and before is not None:
        return Decimal(before["billed"]) < Decimal(before["owed"])
    return name in UNCERTAIN


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The differences in meaning of a scenario's result; amounts within `TOLERANCE`, and tokens within 2 %, count as
    equal.
    """
    found = [
        f"{name}: {before[name]} -> {after[name]}"
        for name in ("owed", "billed")
        if abs(Decimal(before[name]) - Decimal(after[name])) > TOLERANCE
    ]
    if list(before["client"]) != list(after["client"]):
        found.append(f"client: {before['client']} -> {after['client']}")
    return found + differences_of_calls(before["calls"], after["calls"])


def differences_of_calls(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> list[str]:
    """How the calls of a scenario differ."""
    if len(before) != len(after):
        return [f"calls: {len(before)} -> {len(after)}"]
    found = []
    for was, is_now in zip(before, after, strict=True):
        for name in dict.fromkeys((*was, *is_now)):
            old, new = was.get(name), is_now.get(name)
            if not _same(name, old, new):
                found.append(f"{was.get('call_type') or was['decision']}: {name}: {old} -> {new}")
    return found


def _same(name: str, old: Any, new: Any) -> bool:
    if name == "cents" and old is not None and new is not None:
        return abs(Decimal(old) - Decimal(new)) <= TOLERANCE
    if name == "tokens" and old is not None and new is not None:
        return all(abs(a - b) <= _TOKENS_APART * max(a, b) for a, b in zip(old, new, strict=True))
    return bool(old == new)
