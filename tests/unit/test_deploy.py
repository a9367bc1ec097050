"""What the image and the compose file say is what the code knows: every variable, command, port and path."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from connectors.cli import app
from connectors.commands.parsers import serve, worker
from connectors.http.ingress.auth import WebhookAuth, check_exposure
from connectors.serve import API, API_ALONE_PORT
from connectors.settings import VARIABLES, Settings, load_settings
from streams.app import ROLES

ROOT = Path(__file__).parents[2]
#: Top-level elements of the Compose Specification; `x-` is anybody's.
COMPOSE_KEYS = {"name", "services", "networks", "volumes", "configs", "secrets", "include"}
KEPT_SECRET = re.compile(r"KEY|(?<!PER_)TOKEN|SECRET|PASSWORD")
INTERPOLATED = re.compile(r"\$\{(\w+):\?[^}]+\}")

COMPOSE = yaml.safe_load((ROOT / "docker-compose.kafka.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("meterbridge:")}
DOCKERFILE = [
    line.split(maxsplit=1)
    for line in (ROOT / "deploy" / "Dockerfile").read_text().splitlines()
    if line and not line.startswith("#")
]
EXAMPLE = dict(
    line.split("=", 1)
    for line in (ROOT / "deploy" / ".env.example").read_text().splitlines()
    if line and not line.startswith("#")
)


def environment(service: dict[str, Any]) -> dict[str, str]:
    """What a container's process would see, with .env as in the example and a word for every secret."""
    filled = {name: text or ("word" if KEPT_SECRET.search(name) else "") for name, text in EXAMPLE.items()}
    given = service.get("environment", {})
    return {
        name: filled[name] if text is None else INTERPOLATED.sub(lambda told: filled[told[1]], str(text))
        for name, text in given.items()
    }


def accepted(arguments: list[str]) -> dict[str, Any]:
    """The options of a command line as the command line parser reads them; it refuses what it does not know."""
    command: Any = typer.main.get_command(app)
    context: Any = None
    while True:
        context = command.make_context("meterbridge", list(arguments), parent=context)
        if not hasattr(command, "resolve_command"):
            return dict(context.params)
        _, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])


def instructions(name: str) -> list[str]:
    return [rest for word, rest in DOCKERFILE if word == name]


def test_a_misspelt_top_level_key_of_the_compose_file_would_be_noticed() -> None:
    assert {key for key in COMPOSE if not key.startswith("x-")} <= COMPOSE_KEYS


@pytest.mark.parametrize("name", OURS)
def test_every_command_and_option_is_one_of_the_command_line(name: str) -> None:
    options = accepted(OURS[name]["command"])
    named = set(options.get("only", "").split(",")) - {""}
    assert named <= {*serve.SERVED, *worker.ROLES}


def test_a_command_that_is_not_there_is_refused() -> None:
    for wrong in (["serv"], ["worker", "--onyl", "meter"], ["topics", "crate"]):
        with pytest.raises(Exception, match=r"No such (command|option)"):
            accepted(wrong)


def test_the_command_line_offers_exactly_the_roles_there_are() -> None:
    assert set(worker.ROLES) == set(ROLES)


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_one_that_the_settings_read_and_its_value_is_accepted(name: str) -> None:
    given = environment(OURS[name])
    assert given.keys() <= VARIABLES.keys()
    assert load_settings(given).unknown == ()


def test_the_example_names_every_variable_that_is_taken_from_the_environment_and_no_other() -> None:
    text = (ROOT / "docker-compose.kafka.yml").read_text()
    taken = {name for service in OURS.values() for name, text in service.get("environment", {}).items() if text is None}
    assert EXAMPLE.keys() == taken | set(INTERPOLATED.findall(text))
    assert EXAMPLE.keys() <= VARIABLES.keys()


def test_no_secret_has_a_value_in_any_file() -> None:
    files = [dict(service.get("environment", {})) for service in OURS.values()]
    for name, value in [pair for file in [*files, EXAMPLE] for pair in file.items() if KEPT_SECRET.search(pair[0])]:
        assert not value or INTERPOLATED.fullmatch(value), name
    assert not any(KEPT_SECRET.search(rest) for word in ("ENV", "ARG") for rest in instructions(word))


@pytest.mark.parametrize("name", OURS)
def test_in_a_container_every_server_listens_to_the_outside_and_knows_whom_to_trust(name: str) -> None:
    settings = load_settings(environment(OURS[name]))
    options = accepted(OURS[name]["command"])
    if name == "lago-sandbox":
        assert options["host"] == "0.0.0.0"
        return
    assert settings.host == "0.0.0.0"
    tokens = [token.get_secret_value() for token in settings.webhook_token]
    if "webhooks" in options.get("only", ""):
        check_exposure(WebhookAuth(tokens=tokens), allow_unsigned=settings.allow_unsigned)
    if "api" in options.get("only", ""):
        assert settings.litellm_master_key


@pytest.mark.parametrize("name", [name for name in OURS if "ports" in OURS[name]])
def test_every_published_port_is_the_one_listened_on(name: str) -> None:
    settings, options = load_settings(environment(OURS[name])), accepted(OURS[name]["command"])
    listening = options.get("port") or (settings.api_port if options.get("only") == API else settings.port)
    [published] = OURS[name]["ports"]
    assert int(published.rsplit(":")[-1]) == listening
    for told in re.findall(r"127\.0\.0\.1:(\d+)", " ".join(OURS[name].get("healthcheck", {}).get("test", []))):
        assert int(told) == listening


def test_the_ports_of_the_image_are_those_of_the_settings() -> None:
    assert instructions("EXPOSE") == [f"{Settings().port} {API_ALONE_PORT} {Settings().metrics_port}"]


def test_kafka_is_found_where_it_listens() -> None:
    broker = SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].removeprefix("PLAINTEXT://")
    assert {environment(service).get("KAFKA_BOOTSTRAP_SERVERS", broker) for service in OURS.values()} == {broker}


def test_postgres_is_found_where_it_listens_under_the_name_it_is_made_with() -> None:
    made = SERVICES["postgres"]["environment"]
    assert made["POSTGRES_USER"] == made["POSTGRES_DB"] == "meterbridge"
    for name in ("tables", "projector", "worker", "api"):
        settings = load_settings(environment(OURS[name]))
        assert (settings.postgres_host, settings.postgres_user, settings.postgres_db) == (
            "postgres",
            made["POSTGRES_USER"],
            made["POSTGRES_DB"],
        )


def test_the_spool_is_on_a_volume_that_its_user_may_write() -> None:
    """Docker gives a new volume the owner of the folder it is mounted on."""
    path = load_settings(environment(OURS["ingress"])).spool_path
    assert path is not None
    assert OURS["ingress"]["volumes"] == [f"ingress-spool:{path.parent}"]
    [user] = instructions("USER")
    uid, gid = user.split(":")
    assert f"install -d -o {uid} -g {gid} {path.parent}" in instructions("RUN")
    assert not [
        name for name, service in OURS.items() if name != "ingress" and "SPOOL_PATH" in service.get("environment", {})
    ]


def test_nothing_starts_before_its_topics_and_nothing_waits_for_what_is_not_there() -> None:
    awaited = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    assert awaited["topics"] == {"kafka": {"condition": "service_healthy"}}
    assert "healthcheck" in SERVICES["kafka"]
    assert awaited["tables"] == {"postgres": {"condition": "service_healthy"}}
    assert "healthcheck" in SERVICES["postgres"]
    done = {"condition": "service_completed_successfully"}
    assert awaited["projector"] == {"topics": done, "tables": done}
    for name in ("ingress", "worker", "api"):
        assert awaited[name] == {"topics": {"condition": "service_completed_successfully"}}
    assert all(target in SERVICES for targets in awaited.values() for target in targets)
    assert {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])} == set(
        COMPOSE["volumes"]
    )


@pytest.mark.parametrize("name", OURS)
def test_a_container_has_longer_to_stop_than_a_command_takes(name: str) -> None:
    assert int(OURS[name]["stop_grace_period"].removesuffix("s")) > 10


def test_every_image_is_pinned() -> None:
    images = [service["image"] for service in SERVICES.values()]
    images += [line.split()[0] for line in instructions("FROM")]
    assert all(re.fullmatch(r"[\w./-]+:\d[\w.-]+", image) for image in images), images


def test_the_image_runs_as_a_numbered_user_without_rights_in_a_folder_of_its_own() -> None:
    [user] = instructions("USER")
    uid, gid = (int(part) for part in user.split(":"))
    assert uid > 0
    [folder] = [path for path in instructions("WORKDIR") if path != "/src"]
    assert f"install -d -o {uid} -g {gid} {folder}" in instructions("RUN")
    words = [word for word, _ in DOCKERFILE]
    assert words.index("USER") > max(number for number, word in enumerate(words) if word in {"RUN", "COPY"})


def test_the_image_is_made_of_what_is_there_and_its_command_is_ours() -> None:
    copied = [path for line in instructions("COPY") if "--from" not in line for path in line.split()[:-1]]
    assert all((ROOT / path).exists() for path in copied)
    ignored = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == set(copied)
    assert instructions("ENTRYPOINT") == ['["meterbridge"]']
    assert any("-c constraints.txt ." in line for line in instructions("RUN"))


def test_the_compose_file_does_not_start_without_a_password() -> None:
    """Compose itself refuses a variable written so; every other secret may be absent."""
    text = (ROOT / "docker-compose.kafka.yml").read_text()
    assert re.findall(r"\$\{(\w+):\?[^}]+\}", text).count("POSTGRES_PASSWORD") == text.count("${POSTGRES_PASSWORD") > 0
