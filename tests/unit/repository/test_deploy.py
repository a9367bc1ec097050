"""The image and the compose file agree with the code: every variable, command, port and path."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from connectors.cli.main import app
from connectors.cli.parsers import serve, worker
from connectors.config.settings import VARIABLES, Settings, load_settings
from connectors.ingest.auth import WebhookAuth, check_exposure
from connectors.processes.container_health import probes
from connectors.processes.server import API, API_ALONE_PORT
from streams.app import ROLES

ROOT = Path(__file__).parents[3]
#: Top-level elements of the Compose Specification; `x-` is free for extensions.
COMPOSE_KEYS = {"name", "services", "networks", "volumes", "configs", "secrets", "include"}
KEPT_SECRET = re.compile(r"KEY|(?<!PER_)TOKEN|SECRET|PASSWORD")
INTERPOLATED = re.compile(r"\$\{(\w+):\?[^}]+\}")
#: What the compose file itself takes from .env: `${NAME:-default}`; no setting of ours.
OWN = re.compile(r"\$\{(\w+):-([^}]+)\}")

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.kafka.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("meterbridge:")}
DOCKERFILE = [
    line.split(maxsplit=1)
    for line in (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    if line and not line.startswith("#")
]
#: By name of the stage that contains the instruction; the last one is the image.
STAGES: dict[str, list[list[str]]] = {}
for _instruction in DOCKERFILE:
    if _instruction[0] == "FROM":
        STAGES[_instruction[1].rpartition(" AS ")[2] if " AS " in _instruction[1] else "image"] = []
    elif STAGES:
        STAGES[list(STAGES)[-1]].append(_instruction)
LOCKS = {name: (ROOT / "deploy" / f"{name}.lock").read_text() for name in ("requirements", "tracing", "build")}
PINNED = re.compile(r"^([\w.-]+)==(\S+) \\$", re.MULTILINE)
EXAMPLE = dict(
    line.split("=", 1)
    for line in (ROOT / "deploy" / ".env.example").read_text().splitlines()
    if line and not line.startswith("#")
)


def environment(service: dict[str, Any], example: dict[str, str] = EXAMPLE) -> dict[str, str]:
    """The environment of a container's process, with .env as in the example and a value for every secret."""
    filled = {name: text or ("word" if KEPT_SECRET.search(name) else "") for name, text in example.items()}
    filled |= {name: "" for name in example if name.startswith(("PROVIDER_KEYS_", "OUTGOING_"))}  # no word
    given = service.get("environment", {})
    return {
        name: filled[name] if text is None else INTERPOLATED.sub(lambda told: filled[told[1]], str(text))
        for name, text in given.items()
    }


def accepted(arguments: list[str]) -> dict[str, Any]:
    """The options of a command line as its parser reads them; the parser refuses unknown ones."""
    command: Any = typer.main.get_command(app)
    context: Any = None
    while True:
        context = command.make_context("meterbridge", list(arguments), parent=context)
        if not hasattr(command, "resolve_command") or (command.invoke_without_command and not context._protected_args):
            return dict(context.params)
        _, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])


def instructions(name: str) -> list[str]:
    return [rest for word, rest in DOCKERFILE if word == name]


def test_a_misspelt_top_level_key_of_the_compose_file_would_be_noticed() -> None:
    assert {key for key in COMPOSE if not key.startswith("x-")} <= COMPOSE_KEYS


@pytest.mark.parametrize("name", OURS)
def test_every_command_and_option_exists_on_the_command_line(name: str) -> None:
    options = accepted(OURS[name]["command"])
    named = set((options.get("only") or "").split(",")) - {""}
    assert named <= {*serve.SERVED, *worker.ROLES}


def test_an_unknown_command_is_refused() -> None:
    for wrong in (["serv"], ["worker", "--onyl", "meter"], ["topics", "crate"]):
        with pytest.raises(Exception, match=r"No such (command|option)"):
            accepted(wrong)


def test_the_command_line_offers_exactly_the_existing_roles() -> None:
    assert set(worker.ROLES) == set(ROLES)


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_a_setting_and_its_value_is_valid(name: str) -> None:
    given = environment(OURS[name])
    assert given.keys() <= VARIABLES.keys()
    assert load_settings(given).unknown == ()


def test_the_example_names_every_variable_that_is_taken_from_the_environment_and_no_other() -> None:
    text = (ROOT / "docker-compose.kafka.yml").read_text()
    taken = {name for service in OURS.values() for name, text in service.get("environment", {}).items() if text is None}
    own = {name for name, _ in OWN.findall(text)} | {"COMPOSE_PROFILES"}  # which Compose reads itself
    assert EXAMPLE.keys() == taken | set(INTERPOLATED.findall(text)) | own
    assert EXAMPLE.keys() - own <= VARIABLES.keys()
    assert not own & VARIABLES.keys()


def test_no_secret_has_a_value_in_any_file() -> None:
    files = [dict(service.get("environment", {})) for service in OURS.values()]
    for name, value in [pair for file in [*files, EXAMPLE] for pair in file.items() if KEPT_SECRET.search(pair[0])]:
        assert not value or INTERPOLATED.fullmatch(value), name
    assert not any(KEPT_SECRET.search(rest) for word in ("ENV", "ARG") for rest in instructions(word))


@pytest.mark.parametrize("name", OURS)
def test_in_a_container_every_server_listens_on_all_addresses_and_has_its_credentials(name: str) -> None:
    settings = load_settings(environment(OURS[name]))
    options = accepted(OURS[name]["command"])
    if name == "tools":
        return  # it listens on no port
    if name == "lago-sandbox":
        assert options["host"] == "0.0.0.0"
        return
    assert settings.host == "0.0.0.0"
    tokens = [token.get_secret_value() for token in settings.webhook_token]
    if "webhooks" in (options.get("only") or ""):
        check_exposure(WebhookAuth(tokens=tokens), allow_unauthenticated=settings.allow_unauthenticated)
    if "api" in (options.get("only") or ""):
        assert settings.litellm_master_key


@pytest.mark.parametrize("name", [name for name in OURS if "ports" in OURS[name]])
def test_every_published_port_has_a_listener(name: str) -> None:
    settings, options = load_settings(environment(OURS[name])), accepted(OURS[name]["command"])
    listening = options.get("port") or (settings.api_port if options.get("only") == API else settings.port)
    [published] = OURS[name]["ports"]
    assert int(published.rsplit(":")[-1]) == listening
    [probe] = probes(OURS[name]["command"], environment(OURS[name]))
    assert probe.port == listening


def test_no_port_is_open_to_other_machines_by_default() -> None:
    """A port that Docker publishes is open in spite of the machine's firewall."""
    published = [OWN.sub(r"\2", port) for service in SERVICES.values() for port in service.get("ports", [])]
    assert {port.split(":")[0] for port in published} == {"127.0.0.1"}
    assert len({port.split(":")[1] for port in published}) == len(published) == 7, "each has a port of its own"


def test_the_ports_of_the_image_are_those_of_the_settings() -> None:
    assert instructions("EXPOSE") == [f"{Settings().port} {API_ALONE_PORT} {Settings().metrics_port}"]


def test_the_address_of_kafka_is_the_one_it_listens_on() -> None:
    broker = SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].removeprefix("PLAINTEXT://")
    assert {environment(service).get("KAFKA_BOOTSTRAP_SERVERS", broker) for service in OURS.values()} == {broker}


def test_the_address_user_and_database_of_postgres_are_those_it_is_created_with() -> None:
    created = SERVICES["postgres"]["environment"]
    assert created["POSTGRES_USER"] == created["POSTGRES_DB"] == "meterbridge"
    for name in ("tables", "worker", "api", "tools"):
        settings = load_settings(environment(OURS[name]))
        assert (settings.postgres_host, settings.postgres_user, settings.postgres_db) == (
            "postgres",
            created["POSTGRES_USER"],
            created["POSTGRES_DB"],
        )


def test_the_spool_is_on_a_volume_that_its_user_may_write() -> None:
    """Docker gives a new volume the owner of the folder it is mounted on."""
    path = load_settings(environment(OURS["ingress"])).spool_path
    assert path is not None
    assert OURS["ingress"]["volumes"] == [f"ingress-spool:{path.parent}"]
    [user] = instructions("USER")
    uid, gid = user.split(":")
    assert f"install -d -o {uid} -g {gid} {path.parent}" in written_at_build()
    others = {name for name, service in OURS.items() if "SPOOL_PATH" in service.get("environment", {})} - {"ingress"}
    assert others == {"tools"}, "which only shows whether there is one"


def test_held_usage_beyond_the_memory_limit_is_on_a_disk() -> None:
    """/tmp is in memory if the root file system is read-only; SQLite looks for /var/tmp first."""
    assert OURS["worker"]["volumes"] == ["worker-scratch:/var/tmp"]


def written_at_build() -> str:
    """The commands of the final build stage."""
    return "\n".join(rest for word, rest in STAGES["image"] if word == "RUN")


def test_the_sandbox_stores_its_state_where_its_user_may_write() -> None:
    journal = accepted(OURS["lago-sandbox"]["command"])["journal"]
    assert OURS["lago-sandbox"]["volumes"] == [f"lago-sandbox:{journal.parent}"]
    [user] = instructions("USER")
    uid, gid = user.split(":")
    assert f"install -d -o {uid} -g {gid} {journal.parent}" in written_at_build()


@pytest.mark.parametrize("name", ["api", "tools"])
def test_a_service_that_requeues_calls_has_the_meters_rules(name: str) -> None:
    """The api and the commands requeue a dead letter by the meter's rules."""
    given = EXAMPLE | {
        "COST_DECIMALS": "9",
        "DEDUPE_RETENTION_HOURS": "48",
        "CACHE_HIT_POLICY": "bill",
        "BYOK_POLICY": "skip",
        "CLIENT_OAUTH_POLICY": "bill",
        "SILENT_EXPERIMENT_POLICY": "bill",
        "MAX_USD_PER_CALL": "7",
        "MAX_USD_PER_TOKEN": "6",
        "OUT_OF_PERIOD_POLICY": "hold",
        "WINDOW_SECONDS": "10",
        "GRACE_SECONDS": "3",
        "LAGO_EVENT_CODE": "other",
    }
    rules = [load_settings(environment(OURS[one], given)).meter_policy() for one in (name, "worker")]
    assert rules[0] == rules[1]
    assert rules[0].bill_cache_hits and rules[0].cost_decimals == 9


def test_the_service_for_commands_has_every_variable_that_another_has() -> None:
    """`doctor` judges the variables that it sees."""
    named = {name for one, service in OURS.items() for name in service.get("environment", {}) if one != "tools"}
    assert named - OURS["tools"]["environment"].keys() == {"PORT", "API_PORT"}, "where others listen"


def test_every_service_waits_for_its_topics_and_only_for_existing_services() -> None:
    awaited = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    assert awaited["topics"] == {"kafka": {"condition": "service_healthy"}}
    assert "healthcheck" in SERVICES["kafka"]
    assert awaited["tables"] == {"postgres": {"condition": "service_healthy"}}
    assert "healthcheck" in SERVICES["postgres"]
    done = {"condition": "service_completed_successfully"}
    assert awaited["worker"] == {"topics": done, "tables": done}
    for name in ("ingress", "api"):
        assert awaited[name] == {"topics": {"condition": "service_completed_successfully"}}
    assert all(target in SERVICES for targets in awaited.values() for target in targets)
    mounted = [mount for service in SERVICES.values() for mount in service.get("volumes", []) if isinstance(mount, str)]
    assert {mount.split(":")[0] for mount in mounted if not mount.startswith("$")} == set(COMPOSE["volumes"])


@pytest.mark.parametrize("name", OURS)
def test_a_container_has_more_time_to_stop_than_its_command_takes(name: str) -> None:
    assert int(OURS[name]["stop_grace_period"].removesuffix("s")) > 10


def test_every_image_is_pinned_and_can_be_pinned_by_digest() -> None:
    images = [service["image"] for service in SERVICES.values()]
    [own] = [line.split("=", 1)[1] for line in instructions("ARG") if line.startswith("PYTHON_IMAGE=")]
    assert {line.split()[0] for line in instructions("FROM")} == {"${PYTHON_IMAGE}", "dependencies", "scratch"}
    assert OURS["topics"]["build"]["args"] == {"PYTHON_IMAGE": f"${{PYTHON_IMAGE:-{own}}}"}
    pinned = [OWN.sub(r"\2", snapshot) for snapshot in [*images, own]]
    assert all(re.fullmatch(r"[\w./-]+:v?\d[\w.-]+", snapshot) for snapshot in pinned), pinned
    assert [snapshot for snapshot in images if not OWN.fullmatch(snapshot)] == ["meterbridge:0.1.0"] * len(OURS)


def test_the_image_runs_as_a_numbered_user_without_rights_in_a_folder_of_its_own() -> None:
    [user] = instructions("USER")
    uid, gid = (int(part) for part in user.split(":"))
    assert uid > 0
    [folder] = [path for path in instructions("WORKDIR") if path != "/src"]
    assert f"install -d -o {uid} -g {gid} {folder}" in written_at_build()
    words = [word for word, _ in DOCKERFILE]
    assert words.index("USER") > max(number for number, word in enumerate(words) if word in {"RUN", "COPY"})


def test_the_image_copies_only_existing_files_and_runs_our_command() -> None:
    named = [path for line in instructions("COPY") if "--from" not in line for path in line.split()[:-1]]
    copied = [path.replace("${LOCK}", lock) for path in named for lock in ("requirements", "tracing")]
    assert all((ROOT / path).exists() for path in copied)
    ignored = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == set(copied)
    assert instructions("ENTRYPOINT") == ['["meterbridge"]']


def test_every_installed_file_has_its_hash_in_a_lock() -> None:
    """Only wheels are installed: the build tools of a source distribution would come without a hash."""
    installs = [
        part.strip()
        for line in instructions("RUN")
        for part in line.split("&&")
        if " install " in part and "pip" in part
    ]
    assert len(installs) == 3
    assert all("--require-hashes -r" in line or "--no-index" in line for line in installs), installs
    assert "PIP_ONLY_BINARY=:all:" in " ".join(instructions("ENV"))
    assert "--no-build-isolation" in " ".join(instructions("RUN"))
    for lock in LOCKS.values():
        listed = re.split(PINNED, lock)[3::3]
        assert len(listed) > 3 and all("--hash=sha256:" in hashes for hashes in listed)
        assert "://" not in lock, "a lock file names no host"


def test_the_locks_agree_with_the_constraints_and_have_every_dependency() -> None:
    """Run `make lock` after a change of either."""
    constraints = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().lower().split())
    plain = {name.replace("_", "-"): version for name, version in constraints.items()}
    traces = PROJECT["optional-dependencies"]["otel"]
    for lock, lines in (("requirements", ()), ("tracing", traces)):
        locked = {name.lower(): version for name, version in PINNED.findall(LOCKS[lock])}
        assert {name: plain.get(name.replace("_", "-")) for name in locked} == locked
        needed = {re.split(r"[\[<>=;]", line)[0] for line in (*PROJECT["dependencies"], *lines)}
        assert needed <= locked.keys()
        assert ("opentelemetry-sdk" in locked) is (lock == "tracing"), "the plain image has no room for it"
    built = {name for name, _ in PINNED.findall(LOCKS["build"])}
    assert "hatchling" in built


def test_a_source_change_downloads_nothing_and_the_image_has_no_build_tools() -> None:
    """Before the dependencies are installed only the locks are copied; a changed layer and all after it are built
    again.
    """
    copied = [rest for word, rest in STAGES["dependencies"] if word == "COPY"]
    assert copied == ["deploy/build.lock ./", "deploy/${LOCK}.lock requirements.lock"]
    assert ["ARG", "LOCK=requirements"] in STAGES["dependencies"]
    assert all("--no-index" in rest or "pip" not in rest or "pip wheel --no-deps" in rest for rest in runs("product"))
    assert "--without-pip /opt/meterbridge" in " ".join(runs("dependencies"))
    assert not [rest for rest in runs("image") if "install " in rest.replace("install -d", "")]


def runs(stage: str) -> list[str]:
    return [rest for word, rest in STAGES[stage] if word == "RUN"]


def test_every_service_has_a_health_check_and_limits_for_disk_and_memory() -> None:
    [check] = instructions("HEALTHCHECK")
    assert check.endswith('CMD ["python", "-m", "connectors.processes.container_health"]')
    for name, service in SERVICES.items():
        assert "healthcheck" not in service if name in OURS else "healthcheck" in service, name
        assert service["logging"]["options"]["max-size"] and service["mem_limit"], name
        assert service.get("read_only", False) is (name != "kafka"), name
    assert all("/tmp" in " ".join(service["tmpfs"]) for name, service in SERVICES.items() if name != "kafka")
    assert "--host" in SERVICES["postgres"]["healthcheck"]["test"], (
        "on its socket it answers while the database is made"
    )
    assert not [word for word in SERVICES["kafka"]["healthcheck"]["test"] if ".sh" in word], "each would be a JVM"


@pytest.mark.parametrize("name", ["topics", "tables"])
def test_a_start_that_cannot_succeed_fails_instead_of_retrying_forever(name: str) -> None:
    """For example a wrong Postgres password: `up` waits for these two services, and names the one that failed."""
    assert re.fullmatch(r"on-failure:\d", OURS[name]["restart"])


def test_the_compose_file_does_not_start_without_a_password() -> None:
    """Compose itself refuses a missing variable written so; every other secret may be absent."""
    text = (ROOT / "docker-compose.kafka.yml").read_text()
    assert re.findall(r"\$\{(\w+):\?[^}]+\}", text).count("POSTGRES_PASSWORD") == text.count("${POSTGRES_PASSWORD") > 0
