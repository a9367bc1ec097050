"""A person who starts a process at a terminal reads in one sentence that Kafka does not answer; the process waits for it."""

import socket
import sys

import pytest

from connectors.cli.running import say_if_kafka_is_away
from connectors.config.settings import load_settings
from tests.support.ports import free_port


def said(servers: str, capsys: pytest.CaptureFixture[str]) -> str:
    say_if_kafka_is_away(load_settings({"KAFKA_BOOTSTRAP_SERVERS": servers}))
    return capsys.readouterr().err


def test_the_sentence_has_the_address_and_what_happens_next(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    servers = f"127.0.0.1:{free_port()}"
    assert said(servers, capsys) == (
        f"meterbridge: Kafka does not answer at KAFKA_BOOTSTRAP_SERVERS={servers} (connection refused): is it running, and is "
        "KAFKA_SECURITY_PROTOCOL the one of this port? This process waits for it; Ctrl+C ends it.\n"
    )


def test_one_broker_that_accepts_a_connection_is_enough(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with socket.create_server(("127.0.0.1", 0)) as broker:
        assert said(f"127.0.0.1:{free_port()},127.0.0.1:{broker.getsockname()[1]}", capsys) == ""


def test_without_a_terminal_only_the_log_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(f"127.0.0.1:{free_port()}", capsys) == ""
