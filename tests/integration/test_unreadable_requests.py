"""Requests that reach no handler, because they cannot be read: heads that are too large, bodies with an unknown encoding."""

import json
from collections.abc import AsyncIterator

import pytest

from connectors.http.connections import MAX_HEADERS, MAX_LINE
from connectors.http.unauthenticated_limits import Bounds
from tests.support.wires import CANARY, POST, connected, serving


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with serving(Bounds(2000, 2000)) as port:
        yield port


@pytest.mark.parametrize(
    ("said", "status", "reason"),
    [
        (f"X-Long: {CANARY * (MAX_LINE // len(CANARY) + 1)}\r\n\r\n", 431, "head_too_large"),
        (f"X-N: {CANARY}\r\n" * (MAX_HEADERS + 1) + "\r\n", 431, "head_too_large"),
        (f"{CANARY} no header\r\n\r\n", 400, "bad_request"),
        (f"Expect: <b>{CANARY}\r\nContent-Length: 2\r\n\r\nab", 417, "expectation_failed"),
        ("Content-Length: 2\r\nContent-Encoding: br\r\n\r\nab", 415, "unknown_encoding"),
        ("Content-Length: 2\r\nContent-Encoding: zstd\r\n\r\nab", 415, "unknown_encoding"),
        ("Content-Length: 2\r\nContent-Encoding: gzip\r\n\r\nab", 400, "bad_encoding"),
    ],
)
async def test_an_unreadable_request_is_answered_as_problem_json_and_neither_quoted_nor_logged(
    port: int, said: str, status: int, reason: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async with connected(port) as wire:
        await wire.say(POST + said)
        result, headers, body = await wire.answer()
    assert (result, headers["content-type"], json.loads(body)["reason"]) == (status, "application/problem+json", reason)
    assert json.loads(body)["status"] == status
    assert CANARY not in body.decode() + caplog.text + "".join(capfd.readouterr())


async def test_an_expectation_that_is_no_text_is_refused_as_any_other_and_logged_once_a_minute(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        async with connected(port) as wire:
            await wire.say(POST.encode() + b"Expect: \xff\r\nContent-Length: 2\r\n\r\nab")
            status, _, body = await wire.answer()
        assert (status, json.loads(body)["reason"]) == (417, "expectation_failed")
    assert "request_failed" not in caplog.text


async def test_requests_in_other_protocols_are_refused_with_an_explanation(port: int) -> None:
    for said in (b"\x16\x03\x01\x02\x00\x01\x00", b"GARBAGE\r\n\r\n"):
        async with connected(port) as wire:
            await wire.say(said)
            status, _, body = await wire.answer()
            assert (status, json.loads(body)["reason"]) == (400, "bad_request")
            assert await wire.closed()
