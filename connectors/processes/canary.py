"""`meterbridge canary`: bills one synthetic call per interval, and exports its outcome. It needs only the ingress and
Lago.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from importlib.metadata import version
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from connectors.config.addresses import bare_url
from connectors.config.connections import all_revealed, revealed
from connectors.config.http_client import HttpClient
from connectors.config.settings import Settings
from connectors.lago.client import LagoClient, lago_http
from connectors.lago.errors import LagoIntegrationError
from connectors.operations.canary import Canary, Place
from connectors.operations.canary_post import CanaryPost, Credential
from connectors.telemetry.metrics import Metrics
from connectors.telemetry.metrics_server import start_metrics_server
from connectors.telemetry.worker_health import WorkerHealth
from schemas.errors import ConfigurationError
from streams.core.delivery.canary import BILLED, CanaryPlan, Outcome, canary_name, canary_org, check_interval
from streams.runtime.clock import now_us
from streams.runtime.kept_up import kept_up
from streams.runtime.shutdown import StopSignal, run_until_told

ROLE: Final = "canary"
#: Time limit of a post, seconds.
_POST_S: Final = 10.0
_AGAIN_S: Final = 5.0

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class LastBilled:
    """The time of the post of the last call that was billed correctly and in time; before the first such call, the
    start of the process.

    Args:
        monotonic: seconds.
    """

    monotonic: Callable[[], float]
    at_s: float = 0.0

    def __post_init__(self) -> None:
        self.at_s = self.monotonic()

    def decided(self, outcome: Outcome) -> None:
        """Store the outcome of a call."""
        if outcome.result == BILLED and not outcome.late:
            self.at_s = self.monotonic() - outcome.wait_us / 1_000_000

    def age_s(self) -> float:
        """Return the seconds since that time."""
        return self.monotonic() - self.at_s


def run_canary(settings: Settings) -> int:
    """Bill calls until SIGTERM or SIGINT. Returns the exit code.

    Raises:
        ConfigurationError: a setting is missing or wrong.
        Rejected: `no_canary`: Lago answers, and has no subscription of the canary.
    """
    plan_of(settings)

    async def work(word: StopSignal) -> int:
        metrics, health = Metrics(CollectorRegistry(), version("meterbridge")), WorkerHealth(time.monotonic)
        metrics.has_roles(ROLE)
        last = LastBilled(time.monotonic)
        metrics.watch_canary(last.age_s)

        def decided(outcome: Outcome) -> None:
            last.decided(outcome)
            metrics.canary_decided(outcome)

        async with canary_of(settings, metrics.lago_requested, metrics.canary_posted.inc, decided) as canary:
            served = None
            if settings.metrics_port:
                served = start_metrics_server(
                    metrics.registry, settings.host, settings.metrics_port, metrics.connection_closed, health
                )
            beating = asyncio.ensure_future(kept_up("heartbeat", health.keep_beating))
            try:
                await _found(canary)
                health.begun()
                _log.info("canary_started", subscription=canary.subscription, url=bare_url(settings.canary_url))
                await _until_told(canary, word.begun())
            finally:
                beating.cancel()
                if served is not None:
                    served.stop()
        _log.info("stopped")
        return 0

    return run_until_told(work)


async def _until_told(canary: Canary, stop: asyncio.Event) -> None:
    """Work until the stop signal, or until an error, which is raised. A running post may or may not be in Kafka; both
    are correct.
    """
    tasks = {asyncio.ensure_future(canary.work()), asyncio.ensure_future(stop.wait())}
    done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    await asyncio.wait(others)
    for task in done:
        task.result()


async def _found(canary: Canary) -> None:
    """Wait until Lago returns the canary's subscription. Raises: Rejected `no_canary`."""
    while True:
        try:
            await canary.find_subscription()
            return
        except LagoIntegrationError as error:
            if not error.retryable:
                raise
            _log.warning("canary_waits_for_lago", error=str(error))
        await asyncio.sleep(_AGAIN_S)


@asynccontextmanager
async def canary_of(
    settings: Settings,
    on_request: Callable[[str, str, int, float], None] = lambda _name, _verb, _status, _seconds: None,
    on_posted: Callable[[], None] = lambda: None,
    on_outcome: Callable[[Outcome], None] = lambda _: None,
) -> AsyncIterator[Canary]:
    """Yield the canary of a deployment. Raises: ConfigurationError."""
    if settings.lago_api_key is None:
        raise ConfigurationError("LAGO_API_KEY", "LAGO_API_KEY is not set: Lago cannot be asked")
    async with lago_http(settings.lago_timeout, 1) as http, HttpClient(_POST_S) as ingress:
        lago = LagoClient(http, settings.lago_api_url, revealed(settings.lago_api_key), on_request)
        post = CanaryPost(
            ingress,
            settings.canary_url,
            _credential(settings),
            canary_name(settings.deployment_name),
            settings.customer_id_fields[0],
            settings.canary_cost_usd,
        )
        org = canary_org(settings.deployment_name, settings.org_id_prefixes)
        place = Place(org, settings.lago_event_code, copies_count=not settings.lago_clickhouse_dedup)
        yield Canary(plan_of(settings), post, lago, place, now_us, on_posted, on_outcome)


def plan_of(settings: Settings) -> CanaryPlan:
    """Return the plan of the deployment's canary. Raises: ConfigurationError."""
    policy = settings.meter_policy()
    if wrong := check_interval(settings.canary_interval, policy):
        raise ConfigurationError("CANARY_INTERVAL", wrong)
    owed: Decimal = settings.canary_cost_usd if settings.canary_billed_usd is None else settings.canary_billed_usd
    return CanaryPlan(
        name=canary_name(settings.deployment_name),
        interval_us=settings.canary_interval * 1_000_000,
        window_us=policy.window_us,
        grace_us=policy.grace_us,
        within_us=round(settings.canary_billed_within * 1_000_000),
        owed_usd=owed,
    )


def _credential(settings: Settings) -> Credential:
    """Return the newest token, otherwise the newest secret."""
    token, secret = [*all_revealed(settings.webhook_token), ""][0], [*all_revealed(settings.webhook_secret), ""][0]
    return Credential(token, secret)
