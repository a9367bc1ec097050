"""Logs are JSON lines that never contain a secret or a payload, no matter which code wrote them."""

import io
import json
import logging
import time
import warnings
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
import structlog

from connectors.telemetry.logs import REDACTED, REQUEST_ID, configure_logging, redact

CANARY = "the quick brown fox"


def _configured(level: str = "INFO") -> io.StringIO:
    stream = io.StringIO()
    configure_logging(level, "json", stream)
    return stream


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_every_line_is_one_json_object_with_its_time_level_logger_and_event() -> None:
    stream = _configured()
    structlog.get_logger("ours").info("window_sealed", calls=3, cost=Decimal("0.10"), topic=("a", 1))
    logging.getLogger("theirs").warning("broker %s\nis away", "b1")
    ours, theirs = _lines(stream)
    assert ours.pop("timestamp").endswith("Z")
    assert ours == {
        "event": "window_sealed",
        "level": "info",
        "logger": "ours",
        "calls": 3,
        "cost": "0.10",
        "topic": ["a", 1],
    }
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("broker b1\nis away", "warning", "theirs")


def test_a_repeated_line_of_librdkafka_is_logged_rarely_and_other_lines_are_not_limited() -> None:
    stream = _configured()
    for number in range(100):
        client = f"[rdkafka#producer-{number % 7}] [thrd:b:9092/bootstrap]: b:9092: Connect to ipv4#1.2.3.4:9092"
        logging.getLogger("librdkafka").error(f"FAIL {client} failed: refused (after {number}ms in state CONNECT)")
    logging.getLogger("librdkafka").error("FAIL [rdkafka#producer-1] [thrd:b:9092]: SASL authentication failed")
    for _ in range(3):
        logging.getLogger("theirs").warning("again")
    structlog.get_logger("ours").warning("again")
    events = [line["event"] for line in _lines(stream)]
    assert ["refused" in event for event in events] == [True] + [False] * 5
    assert "SASL" in events[1]


def test_a_traceback_is_one_field_of_one_line() -> None:
    stream = _configured()
    try:
        raise ValueError("Authorization: Bearer abc.def")
    except ValueError:
        structlog.get_logger("ours").exception("lane_stopped", value=float("nan"))
        logging.getLogger("theirs").exception("failed")
    for line in _lines(stream):
        assert "Traceback" in line["exception"]
        assert f"Bearer {REDACTED}" in line["exception"]
        assert "abc.def" not in line["exception"]


def test_lines_logged_during_a_request_have_its_id() -> None:
    stream = _configured()
    token = REQUEST_ID.set("r-1")
    logging.getLogger("theirs").error("within")
    REQUEST_ID.reset(token)
    logging.getLogger("theirs").error("after")
    within, after = _lines(stream)
    assert within["request_id"] == "r-1"
    assert "request_id" not in after


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "Authorization",
        "token",
        "WEBHOOK_TOKEN",
        "secret",
        "webhook_secrets",
        "password",
        "sasl_plain_password",
        "api_key",
        "apikey",
        "accessToken",
        "x-api-key",
        "litellm_master_key",
        "signature",
        "X-Webhook-Signature",
        "cookie",
        "messages",
        "prompt",
        "response",
        "body",
        "request_body",
        "payload",
        "content",
    ],
)
def test_the_value_of_a_field_with_a_secret_name_is_never_logged(name: str) -> None:
    for value in (CANARY, [CANARY], {"x": CANARY}, CANARY.encode()):
        assert redact(None, "", {name: value}) == {name: REDACTED}
        assert redact(None, "", {"headers": {name: value}}) == {"headers": {name: REDACTED}}


@pytest.mark.parametrize(
    "name", ["total_tokens", "tokens_input", "response_ms", "body_bytes", "api_key_hash", "reason"]
)
def test_counts_and_hashes_with_similar_names_are_logged(name: str) -> None:
    assert redact(None, "", {name: 12}) == {name: 12}


def test_a_password_with_a_number_in_it_is_masked_too() -> None:
    assert redact(None, "", {"password": 1234, "tokens": 1234}) == {"password": REDACTED, "tokens": 1234}


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("sent Bearer sk_live.a-b=", f"sent Bearer {REDACTED}"),
        ("Authorization: basic dXNlcjpwYXNz", f"Authorization: basic {REDACTED}"),
        ("key sk-1234567890abcdef refused", f"key {REDACTED} refused"),
        ("key sk_" + "test_1234567890abcdef refused", f"key {REDACTED} refused"),
        ("rk_" + "live_1234567890abcdef", REDACTED),
        ("secret whsec_1234567890abcdef", f"secret {REDACTED}"),
        ("key mb_0123456789ab_" + "s" * 43, f"key mb_0123456789ab_{REDACTED}"),
        ("token eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2ln refused", f"token {REDACTED} refused"),
        ("no answer from postgresql://meter:pa:ss@db:5432/x", f"no answer from postgresql://{REDACTED}@db:5432/x"),
        ("redis://:pass@cache/0", f"redis://{REDACTED}@cache/0"),
        ("http://host:3000/a@b is fine", "http://host:3000/a@b is fine"),
        ("task-force of two", "task-force of two"),
    ],
)
def test_a_secret_inside_a_sentence_is_masked(text: str, masked: str) -> None:
    assert redact(None, "", {"event": text}) == {"event": masked}
    assert redact(None, "", {"why": [text]}) == {"why": [masked]}
    assert redact(None, "", {"why": OSError(text)}) == {"why": masked}


def test_an_object_is_logged_only_by_its_type() -> None:
    """The repr of a Kafka record or a payload contains what a caller wrote."""

    @dataclass
    class Record:
        value: str

    assert redact(None, "", {"record": Record(CANARY), "raw": b"abc"}) == {"record": "[Record]", "raw": "[3 bytes]"}


def test_libraries_that_log_normal_traffic_are_logged_from_warning_on() -> None:
    stream = _configured()
    for name in ("faust.worker", "aiokafka.conn", "mode.worker", "aiohttp.access", "httpx"):
        logging.getLogger(name).info("all is well")
    assert _lines(stream) == []
    logging.getLogger("aiokafka.conn").warning("broker away")
    assert len(_lines(stream)) == 1


def test_debug_never_shows_what_aiokafka_sends() -> None:
    """Its debug lines contain complete requests: the SASL password, and every record."""
    stream = _configured("DEBUG")
    structlog.get_logger("ours").debug("chunk_refused")
    logging.getLogger("aiokafka.conn").debug("%s", CANARY)
    logging.getLogger("aiokafka.conn").info("group joined")
    assert [line["event"] for line in _lines(stream)] == ["chunk_refused", "group joined"]


def test_level_error_hides_warnings_of_every_logger() -> None:
    stream = _configured("ERROR")
    logging.getLogger("aiokafka").warning("away")
    structlog.get_logger("ours").warning("late")
    assert _lines(stream) == []


def test_a_python_warning_is_a_line_too() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        stream = _configured()
        warnings.warn("old", UserWarning, stacklevel=1)
    assert "old" in _lines(stream)[0]["event"]


def test_the_text_format_has_no_secrets_and_no_local_variables() -> None:
    stream = io.StringIO()
    configure_logging("INFO", "console", stream)
    local_variable = "kept out of " + "tracebacks"
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger("ours").exception("lane_stopped", token=local_variable, partition=3)
    text = stream.getvalue()
    assert "lane_stopped" in text
    assert "partition=3" in text
    assert "ValueError: broken" in text
    assert local_variable not in text


def test_configuring_twice_does_not_log_twice() -> None:
    before, after = _configured(), _configured()
    logging.getLogger("theirs").error("once")
    assert [line["event"] for line in _lines(before) + _lines(after)] == ["once"]


@pytest.mark.parametrize("piece", ["-eyJ", "eyJ.", "a.", "://a:", ":a", "sk-", "mb_0_", "bearer ", "://a@"])
def test_a_long_text_built_to_be_slow_is_masked_in_time(piece: str) -> None:
    """Names and values of a request reach the audit log, and the process serves nothing else during the masking."""
    text = piece * (256_000 // len(piece))
    begun = time.process_time()
    redact(None, "", {"event": text})
    assert time.process_time() - begun < 1.0


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x.eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2ln", f"x.{REDACTED}"),
        ("-eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2ln,next", f"-{REDACTED},next"),
        ("two eyJa.b.c and eyJd.e.f", f"two {REDACTED} and {REDACTED}"),
        ("connectors.api is fine, eyJ too", "connectors.api is fine, eyJ too"),
    ],
)
def test_a_jwt_is_found_at_every_position(text: str, shown: str) -> None:
    assert redact(None, "", {"event": text})["event"] == shown
