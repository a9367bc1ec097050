"""The projector beside the other roles: when it runs, and its metrics."""

import time

import asyncpg
import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from connectors.cli.main import app
from connectors.cli.worker import roles_of
from connectors.config.roles import ROLES
from connectors.config.settings import load_settings
from connectors.postgres.errors import decisions
from connectors.telemetry.metrics import Metrics
from connectors.telemetry.worker_sensors import WorkerSensors
from schemas.errors import Rejected, Unavailable
from schemas.reasons import POSTGRES_FAILURES
from streams.agents.projector import Projected


def test_the_projector_is_a_role_only_if_postgres_is_configured() -> None:
    assert roles_of(load_settings({})) == ("meter", "sink", "retry")
    assert roles_of(load_settings({"POSTGRES_HOST": "db"})) == ROLES == ("meter", "sink", "retry", "project")


def test_without_postgres_the_error_says_what_is_missing() -> None:
    result = CliRunner().invoke(app, ["worker", "--only", "project"], env={"DATABASE_URL": "", "POSTGRES_HOST": ""})
    assert result.exit_code == 2 and "DATABASE_URL or POSTGRES_HOST must be set" in result.stderr


class Scrape:
    def __init__(self) -> None:
        self.metrics = Metrics(CollectorRegistry(), "0")
        self.sensors = WorkerSensors(self.metrics, time.monotonic)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


def test_rows_failures_and_skipped_records_are_counted() -> None:
    scrape = Scrape()
    scrape.sensors.projected("enriched", Projected({"llm_usage_log": 7}, {"repeated": 2}))
    scrape.sensors.projection_failed("postgres_away")
    assert scrape.value("meterbridge_projected_rows_total", table="llm_usage_log") == 7
    assert scrape.value("meterbridge_projected_rows_total", table="lago_events") == 0
    assert scrape.value("meterbridge_projection_skipped_total", reason="repeated") == 2
    assert [scrape.value("meterbridge_postgres_failures_total", reason=reason) for reason in POSTGRES_FAILURES] == [
        1,
        *[0] * 6,
    ]


def test_the_lag_is_the_age_of_the_oldest_partition_and_grows_while_nothing_moves() -> None:
    scrape, now_ms = Scrape(), time.time_ns() // 1_000_000
    scrape.sensors.projecting("enriched", 0, now_ms - 50_000)
    scrape.sensors.projecting("enriched", 1, now_ms - 90_000)
    lag = scrape.value("meterbridge_projector_lag_seconds", topic="enriched")
    assert lag is not None and 90 <= lag < 95
    scrape.sensors.projecting("enriched", 1, None)
    lag = scrape.value("meterbridge_projector_lag_seconds", topic="enriched")
    assert lag is not None and 50 <= lag < 55
    scrape.sensors.projecting("enriched", 0, None)
    assert scrape.value("meterbridge_projector_lag_seconds", topic="enriched") == 0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (asyncpg.ConnectionDoesNotExistError("secret"), "postgres_away"),
        (ConnectionRefusedError("secret"), "postgres_away"),
        (asyncpg.InternalClientError("secret"), "postgres_away"),
        (asyncpg.AdminShutdownError("secret"), "postgres_away"),
        (asyncpg.CannotConnectNowError("secret"), "postgres_away"),
        (asyncpg.QueryCanceledError("secret"), "postgres_slow"),
        (TimeoutError("secret"), "postgres_slow"),
        (asyncpg.TooManyConnectionsError("secret"), "postgres_full"),
        (asyncpg.DiskFullError("secret"), "postgres_full"),
        (asyncpg.DeadlockDetectedError("secret"), "postgres_busy"),
        (asyncpg.ReadOnlySQLTransactionError("secret"), "postgres_busy"),
        (asyncpg.InvalidPasswordError("secret"), "postgres_denied"),
        (asyncpg.InsufficientPrivilegeError("secret"), "postgres_denied"),
        (asyncpg.UndefinedTableError("secret"), "postgres_schema"),
        (asyncpg.InvalidCatalogNameError("secret"), "postgres_schema"),
        (asyncpg.InternalServerError("secret"), "postgres_error"),
        # Its month was dropped a moment ago, and is created again.
        (asyncpg.CheckViolationError('no partition of relation "secret" found for row'), "postgres_error"),
    ],
)
def test_a_temporary_error_is_waited_for_under_its_own_reason(error: Exception, reason: str) -> None:
    with pytest.raises(Unavailable) as result, decisions():
        raise error
    assert result.value.reason == reason and "secret" not in str(result.value)


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.CheckViolationError("secret"),
        asyncpg.NumericValueOutOfRangeError("secret"),
        asyncpg.CharacterNotInRepertoireError("secret"),
        asyncpg.ProgramLimitExceededError("secret"),
        asyncpg.DataError("secret"),
        # The driver's own error, before anything was sent: earlier it was mistaken for an unavailable server, and retried forever.
        type("Unsendable", (asyncpg.InterfaceError, ValueError), {})("secret"),
    ],
)
def test_an_error_about_the_row_itself_is_a_refusal_without_the_rows_values(error: Exception) -> None:
    with pytest.raises(Rejected) as result, decisions():
        raise error
    assert result.value.reason == "row_refused" and "secret" not in str(result.value)
