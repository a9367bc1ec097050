"""docs/coverage.md has a row for every HTTP endpoint and every command."""

import re
from itertools import product

import httpx
import pytest
import typer.main
from prometheus_client import CollectorRegistry

from connectors.cli.main import app
from connectors.config.settings import Settings
from connectors.http.health import Health
from connectors.ingest.routes import ROUTES
from connectors.kafka.checked_producer import CheckedProducer
from connectors.kafka.client_config import producer_config
from connectors.kafka.producer import KafkaProducer
from connectors.lago.client import LagoClient
from connectors.processes.management_api import Management
from connectors.telemetry.metrics import Metrics
from tests.support.pages import whole_page

VERB = re.compile(r"\b(GET|POST|PUT|DELETE|PATCH)\b")
WORDS = re.compile(r"`([^`]+)`")


def claims_of(section: str) -> list[str]:
    """First cells of the section's rows."""
    text = whole_page("coverage.md").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")][1:]


def without_parameter_names(path: str) -> str:
    """A path with all names of its parameters removed."""
    return re.sub(r"{[^}]*}", "{}", path)


def ways_of(claim: str) -> set[tuple[str, str]]:
    """Verbs and paths that a row names; each verb applies to each path."""
    words = [word for name in WORDS.findall(claim) for word in name.split()]
    verbs = {word for word in words if VERB.fullmatch(word)}
    return set(product(verbs, {without_parameter_names(word) for word in words if word.startswith("/")}))


async def served() -> set[tuple[str, str]]:
    """Verb and path of everything that `serve` answers, without any other service."""
    settings, metrics = Settings(), Metrics(CollectorRegistry(), "0")
    producer = KafkaProducer(producer_config("127.0.0.1:1", answer_within_s=1))
    try:
        async with httpx.AsyncClient() as http:
            lago = LagoClient(http, "http://127.0.0.1:1", "")
            routes = Management(settings, CheckedProducer(producer), {"": lago}, metrics).routes()
    finally:
        await producer.close(0.1)
    routes += Health({}, lambda: "", lambda: 0.0, metrics.registry).routes()
    found = {(route.method, without_parameter_names(route.path)) for route in routes}
    return found | {("POST", route.path) for route in ROUTES}


async def test_every_way_in_has_a_row() -> None:
    rows = {way for claim in claims_of("Endpoints") for way in ways_of(claim)}
    ways = await served()
    assert len(ways) > 45
    assert ways - rows == set()


def commands_of(command: object, *words: str) -> list[str]:
    below: dict[str, object] = getattr(command, "commands", {})
    if not below:
        return [" ".join(words)]
    return [found for name, one in below.items() for found in commands_of(one, *words, name)]


@pytest.mark.parametrize("command", commands_of(typer.main.get_command(app)))
def test_every_command_has_a_row(command: str) -> None:
    named = [word for claim in claims_of("Commands") for word in WORDS.findall(claim)]
    assert any(word == command or word.startswith(f"{command} ") for word in named)
