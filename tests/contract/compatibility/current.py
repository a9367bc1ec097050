"""The contracts of this source tree: what topics, HTTP, metrics, reasons, settings and commands promise to users."""

import asyncio
import json
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, Literal, cast, get_args, get_origin

import httpx
import typer.main
from aiohttp import web
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from connectors.api.openapi.document import document, served
from connectors.cli.main import app
from connectors.config.settings import VARIABLES, Settings
from connectors.http.health import Health
from connectors.ingest.routes import ROUTES
from connectors.kafka.checked_producer import CheckedProducer
from connectors.kafka.client_config import producer_config
from connectors.kafka.producer import KafkaProducer
from connectors.lago.client import LagoClient
from connectors.operations.dead_letter_reasons import KNOWN
from connectors.processes.management_api import Management
from connectors.telemetry.metrics import Metrics
from schemas import reasons as closed_lists
from schemas.asyncapi import CHANNELS
from schemas.generate import INBOUND, OUTBOUND, files
from schemas.organizations import DEFAULT
from streams.core.mapping.held_reasons import HELD_REASONS
from streams.core.metering.decisions import DECISIONS
from tests.contract.compatibility.breaks import Json
from tests.support.reasons_of_code import reasons as raised_reasons

_ISSUER: Final = "https://issuer.example"


def topics() -> Json:
    """Each public topic, and the JSON Schema of each record; the writer of a value decides in which direction it may
    change.
    """
    channels = {
        channel.topic.name: {
            "key": channel.key,
            "value": channel.value,
            "headers": sorted(channel.headers),
            "partitions": channel.topic.partitions.value,
            "cleanup": channel.topic.config["cleanup.policy"],
            "retention_ms": int(channel.topic.config.get("retention.ms", -1)),
        }
        for channel in CHANNELS
    }
    schemas = {of.__name__: json.loads(files()[f"{of.__name__}.schema.json"]) for of in (*OUTBOUND, *INBOUND)}
    return {"topics": channels, "schemas": {name: _without_words(schema) for name, schema in schemas.items()}}


def http() -> Json:
    """What the OpenAPI document promises, without texts for people."""
    result = openapi()
    return {"paths": _without_words(result["paths"]), "components": _without_words(result["components"])}


def openapi() -> Json:
    """The OpenAPI document of a server with every route, without any other service."""
    return asyncio.run(_openapi())


async def _openapi() -> Json:
    metrics = Metrics(CollectorRegistry(), "0")
    producer = KafkaProducer(producer_config("127.0.0.1:1", answer_within_s=1))
    try:
        async with httpx.AsyncClient() as client:
            lago = LagoClient(client, "http://127.0.0.1:1", "")
            management = Management(_settings(), CheckedProducer(producer), {DEFAULT: lago}, metrics)
            endpoints, app = management.endpoints(), web.Application()
            app.add_routes(management.routes())
            app.add_routes(Health({}, lambda: "", lambda: 0.0, metrics.registry).routes())
            every = served(app) | {("POST", route.path) for route in ROUTES}
            return document(endpoints, every, _ISSUER)
    finally:
        await producer.close(0.1)


def metrics() -> Json:
    """Type, labels, known values of labels and buckets of each metric, by the name that a scraper sees."""
    registry = CollectorRegistry()
    Metrics(registry, "0")
    found: Json = {}
    for collector, names in registry._collector_to_names.items():
        labels = list(getattr(collector, "_labelnames", ()))
        for family in collector.collect():
            own = [sample for sample in family.samples if not sample.name.endswith("_created")]
            values = {name: sorted({one.labels[name] for one in own if name in one.labels}) for name in labels}
            bounds = sorted({one.labels["le"] for one in own if "le" in one.labels}, key=float)
            seen = min(names, key=len) if family.type == "unknown" else family.name
            name = seen + {"counter": "_total", "info": "_info"}.get(family.type, "")
            found[name] = {"type": family.type, "labels": labels, "values": values, "buckets": bounds}
    return found


def reasons() -> Json:
    """Reason codes and outcomes, by the list that contains them."""
    lists = {
        name.lower(): sorted(map(str, value))
        for name, value in vars(closed_lists).items()
        if isinstance(value, tuple) and name.isupper()
    }
    return {
        **lists,
        "held": sorted(HELD_REASONS),
        "decisions": sorted(DECISIONS),
        "dead_letters": sorted(KNOWN),
        "errors": sorted({reason for _, reason in raised_reasons()}),
    }


def settings() -> Json:
    """The JSON Schema of each variable's value, by variable; `default` is the value of an unset variable."""
    whole = Settings.model_json_schema()
    found: Json = {}
    for variable, name in VARIABLES.items():
        schema = whole["properties"][name]
        parts = {"$defs": whole["$defs"]} if '"$ref"' in json.dumps(schema) else {}
        found[variable] = {**schema, "default": _default(Settings.model_fields[name].default), **parts}
    return cast("Json", _without_words(found))


def commands() -> Json:
    """Options and arguments of each command, by its words."""
    found: Json = {}

    def walk(command: Any, words: str) -> None:
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, f"{words} {name}")
        if not hasattr(command, "commands"):
            found[words] = _parameters(command)

    walk(typer.main.get_command(app), "meterbridge")
    return found


CONTRACTS: Final[Mapping[str, Callable[[], Json]]] = {
    "topics": topics,
    "http": http,
    "metrics": metrics,
    "reasons": reasons,
    "settings": settings,
    "commands": commands,
}


def contracts() -> dict[str, Json]:
    """All contracts, in the form in which they are read back from JSON."""
    return {name: json.loads(json.dumps(created())) for name, created in CONTRACTS.items()}


def _settings() -> Settings:
    return Settings(
        database_url=SecretStr("postgresql://localhost/x"),
        litellm_master_key=SecretStr("key"),
        oidc_issuer=_ISSUER,
        oidc_audience=("meterbridge",),
    )


def _without_words(schema: Any) -> Any:
    """A schema without texts for people. A property may be called `description`: its value is an object."""
    if isinstance(schema, list):
        return [_without_words(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    words = ("description", "summary", "example", "title")
    return {name: _without_words(part) for name, part in schema.items() if name not in words or isinstance(part, dict)}


def _default(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [_default(part) for part in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _parameters(command: Any) -> Json:
    found: Json = {}
    for place, one in enumerate(command.params):
        is_option = one.param_type_name == "option"
        names = sorted([*one.opts, *one.secondary_opts]) if is_option else []
        annotation = one.type_descriptor.annotation
        choices = get_args(annotation) if get_origin(annotation) is Literal else ()
        found[max(names, key=len) if is_option else f"argument {one.name}"] = {
            "names": names,
            "place": -1 if is_option else place,
            "required": one.required,
            "flag": bool(getattr(one, "is_flag", False)),
            "many": bool(one.multiple) or one.nargs != 1,
            "type": "choice" if choices else getattr(annotation, "__name__", str(annotation)),
            "choices": list(choices) or None,
            "default": _default(one.default() if callable(one.default) else one.default),
        }
    return found
