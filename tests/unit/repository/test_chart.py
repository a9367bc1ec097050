"""The Helm chart agrees with the code, as far as that can be checked without Helm; `make chart-test` renders it."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from connectors.config.settings import VARIABLES, Settings
from connectors.ingest.routes import ROUTES
from connectors.processes.server import API_ALONE_PORT
from deploy.helm.generate import CHART, COPIED, files
from deploy.helm.kafka_files import SCALED, every_secret, roles
from deploy.helm.values_reader import values_of
from deploy.helm.values_schema import OF_A_ROLE, OWNED
from schemas.topics import CATALOGUE
from streams.app import ROLES

ROOT = Path(__file__).parents[3]
VALUES = values_of((CHART / "values.yaml").read_text())
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
SETS = sorted((ROOT / "tests" / "chart" / "values").glob("*.yaml"))
TEMPLATES = {path.name: path.read_text() for path in (CHART / "templates").glob("*.*")}


def merged(below: Any, above: Any) -> Any:
    """Values as Helm merges them: maps key by key."""
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {key: merged(below.get(key), value) for key, value in above.items()}
    return above


def complaints(values: dict[str, Any]) -> list[str]:
    return [error.message for error in Draft7Validator(SCHEMA).iter_errors(merged(DEFAULTS, values))]


def test_generated_parts_of_the_chart_are_current() -> None:
    """Run `make chart` after a change of topics, rights, settings, values.yaml, alarms or dashboards."""
    created = files()
    assert {name: (CHART / name).read_text() for name in created if (CHART / name).exists()} == created
    copies = {str(path.relative_to(CHART)) for folder in COPIED for path in (CHART / folder).glob("*")}
    assert copies == {name for name in created if name.startswith(tuple(COPIED))}


def test_the_chart_has_the_version_of_the_product() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (chart["appVersion"], chart["apiVersion"]) == (version, "v2")
    assert "dependencies" not in chart, "Kafka and Postgres are the user's"


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.stem)
def test_every_set_of_values_fits_the_schema(path: Path) -> None:
    assert complaints(yaml.safe_load(path.read_text())) == []


@pytest.mark.parametrize(
    "values",
    [
        {"replicas": 3},
        {"meter": {"replica": 3}},
        {"meter": {"replicas": "3"}},
        {"meter": {"keda": {"enabled": "yes"}}},
        {"meter": {"keda": {"minReplicas": 0}}},
        {"settings": {"WINDOW_SECOND": 60}},
        {"settings": {"WINDOW_SECONDS": "60s"}},
        {"settings": {"LOG_LEVEL": "LOUD"}},
        {"settings": {"LAGO_API_KEY": "a secret in plain sight"}},
        {"settings": {"POD_NAME": "meter-0"}},
        {"secrets": {"LAGO_KEY": "misspelt"}},
        {"secretRefs": {"LAGO_API_KEY": {"name": "without-a-key"}}},
        {"kafka": {"bootstrapServers": "kafka"}},
        {"kafka": {"securityProtocol": "TLS"}},
        {"image": {"digest": "latest"}},
        {"ingress": {"hosts": [{"host": "h", "paths": [{"path": "/", "pathType": "Prefix", "service": "meter"}]}]}},
    ],
    ids=json.dumps,
)
def test_a_misspelt_key_and_a_wrong_type_are_refused(values: dict[str, Any]) -> None:
    assert complaints({}) == []
    assert complaints(values)


def test_every_setting_goes_to_the_roles_that_read_it_and_no_secret_is_plain_text() -> None:
    """A setting that no role reads would be accepted in the values and ignored."""
    read = {name for role in roles().values() for name in role["settings"]}
    secret = {
        name
        for name, field in VARIABLES.items()
        if re.search("SecretStr|LagoOrganization", str(Settings.model_fields[field]))
    }
    assert set(every_secret()) == secret
    assert read == VARIABLES.keys() - secret - {"POD_NAME", "WORKER_PROCESSES"}
    written = set(re.findall(r"^([A-Z_]+):", TEMPLATES["_settings.tpl"], re.MULTILINE))
    assert written == (OWNED | OF_A_ROLE) - {"POD_NAME", "WORKER_PROCESSES"}


def test_every_role_in_the_code_has_its_values_and_its_topic() -> None:
    workers = {name for name, value in DEFAULTS.items() if isinstance(value, dict) and "keda" in value}
    assert workers == set(ROLES) == SCALED.keys()
    assert set(SCALED.values()) <= {topic.name for topic in CATALOGUE}
    servers = {name for name, value in DEFAULTS.items() if isinstance(value, dict) and "service" in value}
    assert servers == {"webhooks", "api"}


def test_ports_and_probes_are_those_in_the_code() -> None:
    settings = Settings()
    ports = set(re.findall(r'"(?:http|metrics)" (\d+)', TEMPLATES["webhooks.yaml"] + TEMPLATES["api.yaml"]))
    assert ports == {str(settings.port), str(API_ALONE_PORT), str(settings.metrics_port)}
    paths = set(re.findall(r"path: (/health/\w+)", TEMPLATES["_pod.tpl"]))
    assert paths == {"/health/live", "/health/ready"}
    for source in ("http/health.py", "telemetry/worker_health.py"):
        text = (ROOT / "connectors" / source).read_text()
        assert all(f'"{path}"' in text for path in paths), source


def test_the_default_routes_lead_to_the_usage_webhooks_and_nothing_else() -> None:
    [host] = DEFAULTS["ingress"]["hosts"]
    prefixes = [path["path"] for path in host["paths"]]
    assert prefixes == DEFAULTS["httpRoute"]["routes"][0]["paths"]
    for route in ROUTES:
        path = route.path
        assert any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes), path
    assert not [prefix for prefix in prefixes if "/webhooks/lago".startswith(prefix + "/")]


def test_every_value_has_a_description() -> None:
    """At its key or above it; a role's values once, at `webhooks` and at `meter`. Some names are clear without one."""
    explained = {value.path for value in VALUES if value.meaning}
    plain = {"port", "interval", "minReplicas", "maxReplicas", "annotations", "labels", "enabled", "settings"}
    plain |= {"postgresTo", "lagoTo", "othersTo"}
    silent = []
    for value in VALUES:
        twins = [value.path, ("webhooks", *value.path[1:]), ("meter", *value.path[1:])]
        result = any(twin[:depth] in explained for twin in twins for depth in range(1, len(twin) + 1))
        general = (value.path[-1],) in explained or (value.path[1:2]) in explained
        if not (result or general or isinstance(value.default, dict) or value.path[-1] in plain):
            silent.append(value.name)
    assert silent == []


PAGE = (ROOT / "docs" / "kubernetes.md").read_text()


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_the_values_on_the_page_fit_the_schema(text: str) -> None:
    assert complaints(yaml.safe_load(text)) == []


def test_every_value_that_the_page_names_is_there() -> None:
    words = set(re.findall(r"--set ([\w.]+)=", PAGE)) - {"later.image.tag"}
    words |= {word for word in re.findall(r"`([a-z]\w+(?:\.\w+)+)(?:=\w+)?`", PAGE) if word.split(".")[0] in DEFAULTS}
    known = {value.name for value in VALUES}
    known |= {f"{value.name}.{name}" for value in VALUES if value.path[-1] == "settings" for name in VARIABLES}
    known |= {
        f"{value.name}.{name}"
        for value in VALUES
        if value.path[-1] in {"secretRefs", "existingSecretKeys"}
        for name in every_secret()
    }
    assert len(words) > 20
    assert words - known - {"settings.KAFKA_SASL_USERNAME"} == set()


def test_no_file_of_the_chart_is_long() -> None:
    assert [name for name, text in TEMPLATES.items() if text.count("\n") > 160] == []


def test_no_template_needs_a_vendors_chart_or_contains_a_secret() -> None:
    for name, text in TEMPLATES.items():
        assert "bitnami" not in text.lower(), name
    assert DEFAULTS["secrets"] == {} and DEFAULTS["existingSecret"] == ""
