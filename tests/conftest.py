"""Fixtures for all suites: a real Kafka, a real Postgres, and a part of Kafka for each test."""

import asyncio
import gc
import logging
import os
import time
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog
import uvloop
from httpx._config import DEFAULT_TIMEOUT_CONFIG
from hypothesis import HealthCheck, settings

from connectors.telemetry.logs import add_trace_ids
from streams.runtime.aiokafka_repairs import repair_aiokafka
from tests.support.certificates import share_certificates
from tests.support.database import drop_template, migrated_database
from tests.support.eventually import PATIENCE
from tests.support.kafka import Kafka, MavenKafka, start_kafka
from tests.support.kafka.shared import BrokerForWorkers, SharedKafka, shared_kafka
from tests.support.order import longest_first, refuse_unapplied_groups, spread
from tests.support.ports import RUN
from tests.support.postgres import Postgres, start_postgres
from tests.support.stage import Stage
from tests.support.topic_prefix import own_topic_prefix

if TYPE_CHECKING:
    from tests.support.sandbox import Lago

pytest_plugins = ["tests.faults.results"]

# The duration of an example depends on the machine's other work, and on whether this is the first run in a clone.
settings.register_profile("laws", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("laws")

# A client that names no limit has httpx's, which is for a machine that has nothing else to do. The product names its own.
for _part in ("connect", "read", "write", "pool"):
    setattr(DEFAULT_TIMEOUT_CONFIG, _part, 5.0 * PATIENCE)

_NEIGHBOURS = pytest.StashKey[list[str]]()
_COLLECTED = pytest.StashKey[tuple[pytest.Item, ...]]()
_BROKER = pytest.StashKey[BrokerForWorkers]()


def pytest_configure(config: pytest.Config) -> None:
    share_certificates()
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())  # as in streams/runtime/event_loop.py
    repair_aiokafka()
    config.stash[_NEIGHBOURS] = []
    os.environ.setdefault(RUN, _marker(config))  # the workers have it from the start


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """The workers of a parallel run share a broker, if it leaves out the tests that kill and freeze it."""
    if "not faults" in str(node.config.option.markexpr):
        if _BROKER not in node.config.stash:
            node.config.stash[_BROKER] = BrokerForWorkers(lambda: start_kafka(os.environ))
        node.workerinput["broker"] = node.config.stash[_BROKER].address


def pytest_unconfigure(config: pytest.Config) -> None:
    if (broker := config.stash.get(_BROKER, None)) is not None:
        broker.stop()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A run of the marker `faults` or `alone` loads the files that have it: they are few, and loading all takes a minute of CPU."""
    marker = _marker(config)
    if marker in ("faults", "alone") and collection_path.name.startswith("test_") and collection_path.suffix == ".py":
        return True if f"mark.{marker}" not in collection_path.read_text() else None
    return None


def _marker(config: pytest.Config) -> str:
    """The first word of `-m`."""
    return str(config.option.markexpr).partition(" ")[0]


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None]:
    """Every test that uses the broker gets the marker `kafka`, so that `-m 'not kafka'` leaves them out. In a parallel
    run the tests that wait come first.
    """
    for item in items:
        if "kafka" in getattr(item, "fixturenames", ()):
            item.add_marker("kafka")
    config.stash[_COLLECTED] = tuple(items)
    yield  # the other processes leave out tests that `-m` and `-k` do not choose
    if (worker := getattr(config, "workerinput", None)) is not None:
        if _marker(config) == "faults":
            from tests.faults.results import case_seconds  # a plugin is imported by pytest first

            refuse_unapplied_groups(items)

            items[:] = longest_first(items, case_seconds())
        else:
            is_long = lambda item: item.get_closest_marker("long") is not None  # noqa: E731
            items[:] = spread(items, worker["workercount"], is_long)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed with a broker of our own shows the end of the broker's log: the broker may have stopped."""
    report = yield
    broker = getattr(item, "funcargs", {}).get("kafka")
    if report.failed and isinstance(broker, MavenKafka | SharedKafka):
        report.sections.append(("Kafka's log", broker.last_words()))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """While tests are loaded nothing becomes garbage, and looking for it takes a tenth of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Thousands of tests stay until the end: the garbage collector need not look at them again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Workers of a parallel run say which servers they used when they end."""
    node.config.stash[_NEIGHBOURS].extend(getattr(node, "workeroutput", {}).get("neighbours", []))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["neighbours"] = session.config.stash[_NEIGHBOURS]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for neighbour in dict.fromkeys(config.stash[_NEIGHBOURS]):
        terminalreporter.write_line(f"ran against {neighbour}")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A command run in this process configures logging: the next test must not inherit that."""
    root, quieted = logging.getLogger(), [logging.getLogger(library) for library in ("librdkafka", "aiokafka")]
    levels = [(library, library.level) for library in quieted]
    before, level, config = list(root.handlers), root.level, structlog.get_config()
    yield
    for handler in list(root.handlers):
        if handler not in before and not type(handler).__module__.startswith("_pytest"):
            root.removeHandler(handler)
    root.setLevel(level)
    for library, quiet in levels:
        library.setLevel(quiet)
    logging.captureWarnings(capture=False)  # while it is on, switching it on again does nothing
    add_trace_ids(None)
    structlog.configure(**config)


@pytest.fixture(scope="session")
def collected_items(pytestconfig: pytest.Config) -> tuple[pytest.Item, ...]:
    """The tests loaded by this run, including those that `-m` and `-k` left out."""
    return pytestconfig.stash[_COLLECTED]


@pytest.fixture(scope="session")
def kafka(pytestconfig: pytest.Config) -> Iterator[Kafka]:
    """One broker for the whole run; a failure to start it fails every test that needs it."""
    address = getattr(pytestconfig, "workerinput", {}).get("broker", "")
    broker: Kafka = shared_kafka(address) if address else start_kafka(os.environ)
    pytestconfig.stash[_NEIGHBOURS].append(broker.describe())
    yield broker
    broker.stop()


@pytest.fixture
def topic_prefix(kafka: Kafka) -> Iterator[str]:
    """A `TOPIC_PREFIX` for this test only; its topics are deleted afterwards."""
    with own_topic_prefix(kafka.bootstrap) as prefix:
        yield prefix


@pytest.fixture(scope="session")
def postgres(pytestconfig: pytest.Config) -> Iterator[Postgres]:
    """One server for the whole run."""
    server = start_postgres(os.environ)
    pytestconfig.stash[_NEIGHBOURS].append(server.describe())
    yield server
    asyncio.run(drop_template(server.url))
    server.stop()


@pytest.fixture(scope="session")
def postgres_url(postgres: Postgres) -> str:
    """The URL of the server, for asyncpg."""
    return postgres.url


@pytest.fixture
def stage(kafka: Kafka, topic_prefix: str) -> Stage:
    """A deployment's topics, and roles that run in this process."""
    return Stage(kafka.bootstrap, topic_prefix)


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[str]:
    """The address of a migrated database for this test only."""
    async with migrated_database(postgres_url) as url:
        yield url


@pytest.fixture
async def url(postgres_url: str) -> AsyncIterator[str]:
    """The address of another migrated database for this test only."""
    async with migrated_database(postgres_url) as url:
        yield url


@pytest.fixture
async def lago() -> AsyncIterator["Lago"]:
    """A Lago without plans and subscriptions, by this machine's clock."""
    from tests.support.sandbox import lago_sandbox  # few tests need it

    async with lago_sandbox(clock=time.time) as sandbox:
        yield sandbox


@pytest.fixture
def broker() -> Iterator[MavenKafka]:
    """A broker for this test only, which it may end, damage and start again."""
    one = MavenKafka()
    yield one
    one.stop()
