"""Without tracing there is no cost: no module of OpenTelemetry is loaded, and no record has an additional byte."""

import json
import os
import subprocess
import sys

import pytest

from connectors.config.settings import load_settings
from connectors.telemetry.tracing import start_tracing
from schemas.errors import ConfigurationError
from schemas.topics import TopicNames
from streams.components import Components
from streams.state.step_writes import MANIFEST, RAW_PARTITION, SEAL_SEQ, writes_of
from tests.support.meter_line import Line

#: Loads what the processes are made of, and prints what of these libraries is loaded then.
PROGRAM = """
import json, sys
import connectors.processes.server, connectors.processes.worker, connectors.processes.worker_parts, streams.app
from connectors.config.settings import load_settings
from connectors.telemetry.tracing import start_tracing
tracing = start_tracing(load_settings().tracing("meter"), lambda outcome, spans: None)
roots = ("opentelemetry", "google.protobuf", "requests")
print(json.dumps([tracing is not None, [root for root in roots if root in sys.modules]]))
"""


def loaded(**variables: str) -> tuple[bool, set[str]]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        check=True,
    )
    is_on, roots = json.loads(done.stdout)
    return is_on, set(roots)


def test_no_process_loads_opentelemetry_unless_tracing_is_enabled() -> None:
    assert loaded() == (False, set())
    assert loaded(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", OTEL_TRACES_SAMPLER="always_on") == (False, set())
    assert loaded(TRACING_ENABLED="true") == (True, {"opentelemetry", "google.protobuf", "requests"})


def test_the_roles_have_no_traces_unless_tracing_is_enabled() -> None:
    assert Components.__dataclass_fields__["traces"].default is None
    assert load_settings({}).tracing("meter") is None
    config = load_settings({"TRACING_ENABLED": "1"}).tracing("meter")
    assert config is not None
    assert (config.service_name, config.sampler, config.ratio) == (
        "meterbridge-meter",
        "parentbased_traceidratio",
        0.01,
    )


def test_an_event_without_a_traced_call_has_its_usual_headers() -> None:
    line = Line(None)
    line.map("ada")
    line.call(("ada", 1))
    window = line.windows()[0]
    [changes] = [line.work._sealed(line.ledger.position, [window])]
    event = next(iter(writes_of(changes, TopicNames.with_prefix(""), 0)))
    assert [name for name, _ in event.headers] == [MANIFEST, SEAL_SEQ, RAW_PARTITION]
    changes.sealed[0].traceparent = b"00-1"
    event = next(iter(writes_of(changes, TopicNames.with_prefix(""), 0)))
    assert event.headers[-1] == ("traceparent", b"00-1")


def test_without_the_packages_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "connectors.telemetry.traces.provider", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    config = load_settings({"TRACING_ENABLED": "1"}).tracing("meter")
    with pytest.raises(ConfigurationError, match=r"pip install -c constraints.txt '.\[otel\]'") as refused:
        start_tracing(config, lambda _outcome, _spans: None)
    assert refused.value.reason == "TRACING_ENABLED"
