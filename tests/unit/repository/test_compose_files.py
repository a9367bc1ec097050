"""Both compose files are valid, `deploy/deploy.sh` refuses what it cannot do, and the files for Lago refer to existing
things.
"""

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_pydantic.models import ComposeSpecification
from pydantic import ValidationError

from connectors.config.settings import VARIABLES
from connectors.ingest.routes import ROUTES
from connectors.processes.container_health import probes

ROOT = Path(__file__).parents[3]
KAFKA_FILE, LAGO_FILE = ROOT / "docker-compose.kafka.yml", ROOT / "deploy" / "compose" / "lago.yml"
SCRIPT = ROOT / "deploy" / "deploy.sh"
TAKEN = re.compile(r"\$\{(\w+)(?::[?-][^}]*)?\}")
#: What deploy.sh makes, and Lago or both do not start without.
OF_LAGO = {
    "SECRET_KEY_BASE",
    "ENCRYPTION_PRIMARY_KEY",
    "ENCRYPTION_DETERMINISTIC_KEY",
    "ENCRYPTION_KEY_DERIVATION_SALT",
}


class _Tagged(yaml.SafeLoader):
    """Compose's own tag for a value that an extending service removes."""


_Tagged.add_constructor("!reset", lambda loader, node: None)


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(path.read_text(), _Tagged)
    for service in found["services"].values():
        if service.get("profiles", ()) is None:
            del service["profiles"]
    return found


LAGO = load(LAGO_FILE)


def specified(file: dict[str, Any]) -> None:
    """Validate. Raises ValidationError if the file violates the compose specification. `x-` keys are free."""
    ComposeSpecification.model_validate({key: value for key, value in file.items() if not key.startswith("x-")})


def example(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize("path", [KAFKA_FILE, LAGO_FILE], ids=lambda path: path.name)
def test_the_file_is_valid_against_the_compose_specification(path: Path) -> None:
    specified(load(path))


@pytest.mark.parametrize(
    "wrong",
    [
        {"helthcheck": {}},
        {"depends_on": {"postgres": {"condition": "service_helthy"}}},
        {"ports": [{"published": 1, "traget": 2}]},
        {"mem_limit": ["1g"]},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_typing_mistake_in_a_service_would_be_noticed(wrong: dict[str, Any]) -> None:
    file = load(LAGO_FILE)
    file["services"]["redis"] |= wrong
    with pytest.raises(ValidationError):
        specified(file)


def test_every_awaited_or_extended_service_exists() -> None:
    ours = load(KAFKA_FILE)["services"]
    for name, service in LAGO["services"].items():
        assert set(service.get("depends_on", ())) <= LAGO["services"].keys(), name
        if base := service.get("extends"):
            assert (LAGO_FILE.parent / base["file"]).resolve() == KAFKA_FILE
            assert set(ours[base["service"]].get("depends_on", ())) <= LAGO["services"].keys(), name
    assert "postgres" in ours["tables"]["depends_on"] and "POSTGRES_USER" not in ours["tables"]["environment"]
    assert "'meterbridge'" in LAGO["services"]["databases"]["command"][0], "the names that the settings have by default"


def test_the_published_ports_are_those_on_the_page_and_open_only_to_this_machine() -> None:
    ports = [port for service in LAGO["services"].values() for port in service.get("ports", ())]
    assert sorted(ports) == sorted(
        f"127.0.0.1:{port}" for port in ("5433:5432", "6380:6379", "3000:3000", "8080:80", "3002:3002")
    )


def test_lago_runs_only_after_its_tables_exist_and_nothing_is_billed_before_its_metrics_exist() -> None:
    awaited = {name: service.get("depends_on", {}) for name, service in LAGO["services"].items()}
    healthy, done = {"condition": "service_healthy"}, {"condition": "service_completed_successfully"}
    assert awaited["lago-migrate"] == {"postgres": healthy, "redis": healthy}
    for name in ("lago-api", "lago-worker", "lago-clock"):
        assert awaited[name] == {"lago-migrate": done}
    assert awaited["lago-front"] == awaited["lago-setup"] == {"lago-api": healthy}
    assert awaited["worker"] == {"tables": done, "lago-setup": done}
    assert awaited["lago-api-integration"] == {"topics": done}, "calls are taken whether Lago runs or not"
    assert awaited["tables"] == {"databases": done} and awaited["databases"] == {"postgres": healthy}


def test_every_mounted_file_exists_and_is_read_only() -> None:
    """Compose would create a folder for a missing file, and a container could write into our files."""
    services = load(KAFKA_FILE)["services"].values()
    bound = [mount for one in services for mount in one.get("volumes", ()) if isinstance(mount, dict)]
    assert len(bound) == 4
    for mount in bound:
        assert (ROOT / mount["source"]).exists(), mount["source"]
        assert mount["read_only"] and mount["bind"] == {"create_host_path": False}


def test_prometheus_scrapes_every_role_of_every_service() -> None:
    """Each role of a worker has its own metrics port, as in its health check; a server has the first one."""
    [job] = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    asked = {target for static in job["static_configs"] for target in static["targets"]}
    asked |= {f"{name}:{one['port']}" for one in job["dns_sd_configs"] for name in one["names"]}
    running = set()
    for name, service in load(KAFKA_FILE)["services"].items():
        words, environ = service.get("command", [""]), service.get("environment", {})
        ports = {
            "serve": [9090],
            "canary": [9090],
            "worker": [probe.port for probe in probes(words, {name: str(value) for name, value in environ.items()})],
        }
        running |= {f"{name}:{port}" for port in ports.get(words[0], [])}
    assert asked == running


def test_every_container_of_lago_has_limits_and_is_restarted() -> None:
    for name, service in LAGO["services"].items():
        if "extends" not in service and name != "databases":
            assert service["mem_limit"] and service["restart"] and service["logging"], name


def test_the_example_names_every_variable_of_the_file_and_no_other() -> None:
    named, taken = example(LAGO_FILE.parent / ".env.example"), set(TAKEN.findall(LAGO_FILE.read_text()))
    kafkas = set(TAKEN.findall(KAFKA_FILE.read_text())) | VARIABLES.keys()
    assert taken <= named.keys()
    assert named.keys() <= taken | kafkas, named.keys() - taken - kafkas
    required = {name for path in (KAFKA_FILE, LAGO_FILE) for name in re.findall(r"\$\{(\w+):\?", path.read_text())}
    assert OF_LAGO < required < named.keys()
    assert not any(named[name] for name in required if re.search("KEY|TOKEN|PASSWORD|SALT", name))


def test_a_variable_that_lago_names_differently_has_lagos_name_in_its_containers() -> None:
    """Lago uses `ENCRYPTION_...` even if it is empty, so the value is given under its other name."""
    given = LAGO["services"]["lago-api"]["environment"]
    assert {name.removeprefix("LAGO_") for name in given if "ENCRYPTION" in name} == OF_LAGO - {"SECRET_KEY_BASE"}
    assert not [name for name in given if name.startswith("ENCRYPTION")]
    assert "LAGO_WEBHOOK_SECRET" not in given, "to Lago it is no variable"
    assert given["LAGO_RSA_PRIVATE_KEY"], "without it Lago does not start"


def test_lagos_webhooks_go_to_an_address_that_is_served() -> None:
    text = (LAGO_FILE.parent / ".env.example").read_text()
    [path] = re.findall(r"http://lago-api-integration:3002(/\S+)[,.]", text)
    assert path == "/webhooks/lago" and path not in {route.path for route in ROUTES}, "the management API has it"
    assert "lago-api-integration" in LAGO["services"]


def test_shellcheck_finds_nothing_in_the_script() -> None:
    result = subprocess.run(
        [str(Path(sys.executable).parent / "shellcheck"), str(SCRIPT)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


def run(*words: str, path: str = os.environ["PATH"]) -> tuple[int, str, str]:
    """Run the script with these words, and without Docker unless `path` contains one."""
    done = subprocess.run(
        [str(SCRIPT), *words], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env={"PATH": path}
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def without_docker(tmp_path: Path) -> str:
    """A PATH with the programs that the script needs, without `docker`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "cat", "dirname", "sed", "tail", "tr", "install", "openssl", "mv", "env"):
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    return str(folder)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((), "usage: "),
        (("deplyo",), "there is no command deplyo"),
        (("--lgao", "status"), "there is no option --lgao"),
        (("--env-file",), "--env-file: name a file"),
        (("--env-file", "/nowhere/.env", "status"), "`deploy/deploy.sh keys` makes it"),
    ],
)
def test_a_wrong_argument_is_refused_with_code_2_and_a_sentence(words: tuple[str, ...], reason: str) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert reason in err


def test_the_help_names_every_command_and_profile() -> None:
    code, out, _ = run("--help")
    assert code == 0
    commands = re.findall(r"^  (\w+) ", out, re.MULTILINE)
    [accepted] = re.findall(r"^case \$word in ([\w| ]+)\)", SCRIPT.read_text(), re.MULTILINE)
    assert commands == accepted.split(" | ")
    named = set(re.search(r"names profiles: (.+)", out)[1].replace("; with --lago: ", ", ").split(", "))  # type: ignore[index]
    files = [load(KAFKA_FILE), LAGO]
    assert named == {
        profile for file in files for one in file["services"].values() for profile in one.get("profiles", ())
    } - {"tools"}


def test_without_docker_the_script_says_so(tmp_path: Path, without_docker: str) -> None:
    settings = tmp_path / ".env"
    settings.write_text("")
    code, _, err = run("--env-file", str(settings), "status", path=without_docker)
    assert (code, err) == (1, "deploy.sh: docker compose, version 2, is not installed\n")


@pytest.mark.parametrize("lago", [False, True], ids=["kafka", "lago"])
def test_missing_keys_are_created_and_existing_ones_kept(tmp_path: Path, lago: bool) -> None:
    path, own = tmp_path / ".env", ["--lago"] if lago else []
    code, out, err = run(*own, "--env-file", str(path), "keys")
    assert (code, err) == (0, "")
    created = example(path)
    file = LAGO_FILE if lago else KAFKA_FILE
    required = set(re.findall(r"\$\{(\w+):\?", KAFKA_FILE.read_text() + file.read_text()))
    assert [name for name in required if not created[name]] == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    secrets = [line.split()[0] for line in out.splitlines() if line.endswith(" is set")]
    assert len({created[name] for name in secrets}) == len(secrets) >= 4
    assert not any(created[name] in out for name in secrets), "a key is not printed"
    assert created.keys() == example(file.parent / ("" if lago else "deploy") / ".env.example").keys()
    before = path.read_text()
    assert run(*own, "--env-file", str(path), "keys")[0] == 0
    assert path.read_text() == before


def test_the_key_of_your_own_lago_is_required_and_not_generated(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("LAGO_API_URL=https://lago.example.com\nLAGO_API_KEY=\nWEBHOOK_TOKEN=mine\n")
    code, out, _ = run("--env-file", str(path), "keys")
    assert code == 0 and "still empty: LAGO_API_KEY" in out
    assert example(path)["WEBHOOK_TOKEN"] == "mine"
    assert not example(path)["LAGO_API_KEY"]
