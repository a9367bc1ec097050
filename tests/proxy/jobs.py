"""Responses and batches in OpenAI's format: jobs that a client polls."""

from typing import Any


def response(job: str, usage: dict[str, Any], *, made_at: int, finished: bool, background: bool) -> dict[str, Any]:
    """A response. Args: job: its id, `resp_...`. usage: once it is finished. made_at: seconds since 1970."""
    text = {"type": "output_text", "text": "hello", "annotations": []}
    message = {"type": "message", "id": "msg_" + job[5:], "role": "assistant", "status": "completed", "content": [text]}
    return {
        "id": job,
        "object": "response",
        "created_at": made_at,
        "status": "completed" if finished else "in_progress",
        "background": background,
        "model": "gpt-4o-mini",
        "output": [message] if finished else [],
        "usage": usage if finished else None,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "metadata": {},
    }


def response_tokens(tokens_input: int, tokens_output: int) -> dict[str, Any]:
    """The usage of a response."""
    return {
        "input_tokens": tokens_input,
        "output_tokens": tokens_output,
        "total_tokens": tokens_input + tokens_output,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }


def response_events(whole: dict[str, Any]) -> list[dict[str, Any]]:
    """A finished response as a stream."""
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    part = {"item_id": "msg_" + whole["id"][5:], "output_index": 0, "content_index": 0, "delta": "hello"}
    events = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_text.delta", **part},
        {"type": "response.completed", "response": whole},
    ]
    return [{**event, "sequence_number": place} for place, event in enumerate(events)]


def batch(job: str, *, made_at: int, finished: bool) -> dict[str, Any]:
    """A batch of two completions."""
    return {
        "id": job,
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "input_file_id": "file-in",
        "output_file_id": "file-out" if finished else None,
        "completion_window": "24h",
        "status": "completed" if finished else "in_progress",
        "created_at": made_at,
        "request_counts": {"total": 2, "completed": 2 * finished, "failed": 0},
    }
