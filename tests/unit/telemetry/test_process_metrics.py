"""How near limits are: roles, waiting records, certificates; and alarms see the first case of everything that is
counted.
"""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from connectors.config.settings import load_settings
from connectors.operations.dead_letter_reasons import KNOWN
from connectors.processes.certificates import certificate_files
from connectors.telemetry.certificate_end import CertificateFile
from connectors.telemetry.metrics import Metrics
from connectors.telemetry.process_metrics import ROLES
from connectors.telemetry.queue_metrics import QUEUES, Waiting
from schemas.reasons import INGRESS_REASONS, INGRESS_RULE_REASONS
from streams.app import ROLES as WORKER_ROLES

NOW = datetime(2026, 11, 29, tzinfo=UTC)
DAY_S = 86_400.0


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry(), "1.2.3")


@pytest.fixture
def value(metrics: Metrics) -> Callable[..., float | None]:
    return lambda name, **labels: metrics.registry.get_sample_value(name, labels)


def test_a_process_shows_its_own_roles_and_no_other(metrics: Metrics, value: Callable[..., float | None]) -> None:
    metrics.has_roles("meter", "sink")
    result = {role: value("meterbridge_role", role=role) for role in ROLES}
    assert result == {"webhooks": 0, "api": 0, "meter": 1, "sink": 1, "retry": 0, "project": 0, "canary": 0}
    assert set(WORKER_ROLES) == set(ROLES) - {"webhooks", "api", "canary"}


def test_the_age_of_waiting_records_is_a_share_of_the_retention_and_0_without_a_retention(
    metrics: Metrics, value: Callable[..., float | None]
) -> None:
    metrics.waits({"raw": Waiting(7, 15 * DAY_S, 30 * DAY_S), "events": Waiting(1, 9 * DAY_S, 0)})
    result = [
        [value(f"meterbridge_waiting_{name}", topic=topic) for topic in QUEUES]
        for name in ("records", "oldest_seconds")
    ]
    assert result == [[7, 1, 0], [15 * DAY_S, 9 * DAY_S, 0]]
    assert [value("meterbridge_waiting_retention_ratio", topic=topic) for topic in QUEUES] == [0.5, 0, 0]


def certificate_from_now(ends_in: timedelta) -> bytes:
    return certificate(datetime.now(UTC) - NOW + ends_in)


def certificate(ends_in: timedelta) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kafka")])
    created = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW - timedelta(days=400), NOW + ends_in)
    return created.sign(key, SHA256()).public_bytes(Encoding.PEM)


def test_the_certificate_that_expires_first_counts_until_it_has_expired(
    metrics: Metrics, value: Callable[..., float | None], tmp_path: Path
) -> None:
    path = tmp_path / "ca.pem"
    old, new = (certificate(timedelta(days=days)) for days in (10, 400))
    path.write_bytes(new + old)
    now = NOW.timestamp()
    file = CertificateFile("KAFKA_SSL_CAFILE", path, lambda: now)
    metrics.watch_certificate("KAFKA_SSL_CAFILE", file.expires_s)
    assert value("meterbridge_certificate_expires_seconds", setting="KAFKA_SSL_CAFILE") == 10 * DAY_S
    now += 11 * DAY_S
    assert file.expires_s() == 389 * DAY_S
    now += 400 * DAY_S
    assert file.expires_s() == -11 * DAY_S


def test_a_certificate_is_read_again_when_its_file_changes_and_a_damaged_one_is_logged_once(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(certificate(timedelta(days=1)))
    file = CertificateFile("KAFKA_SSL_CAFILE", path, NOW.timestamp)
    assert file.expires_s() == DAY_S
    path.write_bytes(certificate(timedelta(days=90)))
    os.utime(path, (1, 1))
    assert file.expires_s() == 90 * DAY_S
    path.write_bytes(b"no certificate")
    with capture_logs() as lines:
        assert file.expires_s() == file.expires_s() == 0
        path.unlink()
        assert file.expires_s() == 0
    assert [(line["event"], line["setting"]) for line in lines] == [("certificate_unreadable", "KAFKA_SSL_CAFILE")]


def test_every_setting_that_names_a_certificate_is_watched(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(certificate(timedelta(days=1)))
    url = "postgresql://user:password@host/db?sslmode=verify-full&sslrootcert=/pg/ca.pem&sslcert=/pg/client.pem"
    given = {"KAFKA_SSL_CAFILE": str(path), "DATABASE_URL": url}
    assert dict(certificate_files(load_settings(given))) == {
        "KAFKA_SSL_CAFILE": path,
        "DATABASE_URL sslrootcert": Path("/pg/ca.pem"),
        "DATABASE_URL sslcert": Path("/pg/client.pem"),
    }
    assert list(certificate_files(load_settings({"DATABASE_URL": "postgresql://u:p@h/db?sslrootcert=system"}))) == []


def test_every_reason_of_a_rejection_is_counted_from_zero_on(value: Callable[..., float | None]) -> None:
    """The first sample of a series is invisible to `increase()`: an alarm would miss the first rejection."""
    counted = {*INGRESS_REASONS, *INGRESS_RULE_REASONS}
    assert counted <= KNOWN
    assert all(value("meterbridge_ingress_elements_total", outcome=reason) == 0 for reason in counted)
