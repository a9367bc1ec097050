"""`make chart-test`: the manifests, for each set of values in `values/`, are valid for Kubernetes and agree with the
code.

The name of this file keeps it out of `make test`: it needs Helm, which tools.py fetches.
"""

import json
import subprocess
from base64 import b64decode
from pathlib import Path

import pytest
import yaml

from connectors.config.settings import VARIABLES, load_settings
from connectors.ingest.auth import WebhookAuth, check_exposure
from connectors.processes.container_health import probes
from deploy.helm.kafka_files import SECRETS
from tests.chart.manifests import VERSIONS, complaints
from tests.chart.rendering import (
    CHART,
    HERE,
    SETS,
    container,
    named,
    of_kind,
    pods,
    rendered,
    variables,
    written,
)
from tests.chart.tools import HELMS, helm, kube_score
from tests.support.authority import Authority
from tests.unit.repository.test_deploy import accepted

#: What kube-score finds and why it stays.
ACCEPTED = {
    "CPU limit is not set": "a limit throttles a consumer below its request, until its lag grows",
    "Ephemeral Storage limit is not set": "every volume has a size limit, and the root is read-only",
    "ImagePullPolicy is not set to Always": "tags of releases are not moved, and a digest cannot be",
    "The pod does not have a matching NetworkPolicy": "they are optional: not every cluster enforces them",
    "Deployment few replicas": "one retry and one projector suffice; nothing is lost while they restart",
    "Deployment does not have a host podAntiAffinity set": "its values give another affinity",
}
SEALED = "KAFKA_SSL_KEY_PASSWORD_FILE"
POSSIBLE = {"networkPolicy": ("network-policies", "The pod does not have a matching NetworkPolicy")}


@pytest.mark.parametrize("version", HELMS)
@pytest.mark.parametrize("name", SETS)
def test_helm_lint_has_no_finding(name: str, version: str) -> None:
    command = [helm(version), "lint", "--strict", str(CHART), "-f", str(HERE / "values" / f"{name}.yaml")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("name", SETS)
def test_both_generations_of_helm_render_the_same(name: str) -> None:
    first, second = (sorted(rendered(name, version=version), key=named) for version in HELMS)
    assert first == second


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", SETS)
def test_kubernetes_knows_every_key_of_every_manifest(name: str, version: str) -> None:
    manifests = rendered(name)
    wrong = {named(manifest): result for manifest in manifests if (result := complaints(manifest, version))}
    assert not wrong
    assert len({named(manifest) for manifest in manifests}) == len(manifests), "a name twice"


def test_a_misspelt_key_of_a_manifest_would_be_noticed() -> None:
    [manifest] = of_kind(rendered("keda"), "PodMonitor")
    deployment = of_kind(rendered("keda"), "Deployment")[0]
    assert complaints(manifest | {"spec": manifest["spec"] | {"podMetricsEndpoint": []}}, VERSIONS[0])
    assert complaints(deployment | {"spec": deployment["spec"] | {"replicaz": 1}}, VERSIONS[0])


@pytest.mark.parametrize("name", SETS)
def test_kube_score_finds_only_what_is_meant(name: str) -> None:
    result = subprocess.run(
        [kube_score(), "score", "-o", "ci", "--kubernetes-version", "v1.30", "-"],
        input=written(name), capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = [line for line in result.stdout.splitlines() if line.startswith(("[CRITICAL]", "[WARNING]"))]
    assert result.stdout.count("[OK]") > 20
    meant = {text for text in ACCEPTED if (name, text) not in POSSIBLE.values()}
    assert [line for line in found if not line.endswith(tuple(meant))] == []


@pytest.mark.parametrize("name", SETS)
def test_every_variable_is_a_setting_with_a_valid_value(name: str, tmp_path: Path) -> None:
    for role, pod in pods(rendered(name)).items():
        result = variables(pod)
        ours = {key: value for key, value in result.items() if key.removesuffix("_FILE") in VARIABLES}
        extra = {"SSL_CERT_FILE"} if name == "hpa-gateway" else set()
        assert result.keys() - ours.keys() == extra, role
        for key in [key for key in ours if key.endswith("FILE") and key.removesuffix("_FILE") in VARIABLES]:
            path = tmp_path / key
            path.write_text("postgresql://u:p@h/d" if "DATABASE" in key else "a-secret-of-twenty-chars")
            if key == "PROVIDER_KEYS_SECRET_FILE":
                path.write_text("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
            ours[key] = str(path)
        certificate = Authority(tmp_path).client("client", "a-secret-of-twenty-chars" if SEALED in ours else "")
        files = {"CAFILE": certificate.certificate, "CERTFILE": certificate.certificate, "KEYFILE": certificate.key}
        ours |= {f"KAFKA_SSL_{name}": str(path) for name, path in files.items() if f"KAFKA_SSL_{name}" in ours}
        settings = load_settings(ours)
        assert settings.unknown == ()
        if role == "webhooks":
            tokens = [one.get_secret_value() for one in settings.webhook_token]
            secrets = [one.get_secret_value() for one in settings.webhook_secret]
            check_exposure(WebhookAuth(tokens=tokens, secrets=secrets), allow_unauthenticated=False)


@pytest.mark.parametrize("name", SETS)
def test_every_command_is_ours_and_every_probe_uses_a_port_with_a_listener(name: str) -> None:
    for role, pod in pods(rendered(name)).items():
        words = container(pod).get("args", [])
        if role == "tools":
            assert not words and container(pod)["command"] == ["sleep", "infinity"]
            continue
        accepted(words)
        ports = {port["name"]: port["containerPort"] for port in container(pod).get("ports", [])}
        asked = probes(words, variables(pod))
        if role in {"topics", "tables"}:
            assert not asked and not ports
            continue
        [health] = asked
        ready, live = (container(pod)[f"{kind}Probe"]["httpGet"] for kind in ("readiness", "liveness"))
        assert (ports[ready["port"]], ready["path"]) == (health.port, health.path)
        assert (ports[live["port"]], live["path"]) == (health.port, "/health/live")
        assert container(pod)["startupProbe"]["httpGet"] == live
        assert ports["metrics"] == int(variables(pod)["METRICS_PORT"])
        assert variables(pod)["HOST"] == "0.0.0.0", "a probe comes from outside of the container"


@pytest.mark.parametrize("name", SETS)
def test_no_pod_has_privileges_and_every_volume_has_a_limit(name: str) -> None:
    for role, pod in pods(rendered(name)).items():
        spec, security = pod["spec"], container(pod)["securityContext"]
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False, "a Service called postgres would set POSTGRES_PORT to an address"
        for volume in spec["volumes"]:
            assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""}), role
        mounted = {mount["mountPath"] for mount in container(pod)["volumeMounts"]}
        assert "/tmp" in mounted
        assert ("/var/tmp" in mounted) is (role == "meter"), "where held usage lies"


@pytest.mark.parametrize("name", SETS)
def test_a_role_has_only_its_own_secrets_as_files(name: str) -> None:
    for role, pod in pods(rendered(name)).items():
        files = {
            item["path"]: source["secret"]["name"]
            for volume in pod["spec"]["volumes"]
            for source in volume.get("projected", {}).get("sources", [])
            if "secret" in source
            for item in source["secret"]["items"]
        }
        for path in ("kafka-ca.crt", "kafka-client.crt", "kafka-client.key"):
            files.pop(path, None)
        assert files.keys() <= set(SECRETS[role]), role
        pointed = {key: value for key, value in variables(pod).items() if key.removesuffix("_FILE") in files}
        assert pointed == {f"{key}_FILE": f"/run/secrets/meterbridge/{key}" for key in files}
        created = {found for found in files.values() if found.endswith("-hooks")}
        assert not created or role in {"topics", "tables"}


def test_secrets_appear_only_in_secret_manifests() -> None:
    for name in ("minimal", "network-policies"):
        given = yaml.safe_load((HERE / "values" / f"{name}.yaml").read_text())["secrets"]
        others = json.dumps([manifest for manifest in rendered(name) if manifest["kind"] != "Secret"])
        created = of_kind(rendered(name), "Secret")
        assert [value for value in given.values() if value in others] == []
        for secret in created:
            assert {key: b64decode(text).decode() for key, text in secret["data"].items()} == given


def test_the_packed_chart_contains_every_file_that_it_reads(tmp_path: Path) -> None:
    for version in HELMS:
        subprocess.run([helm(version), "package", str(CHART), "-d", str(tmp_path)], check=True, capture_output=True)
        [package] = tmp_path.glob("*.tgz")
        listed = subprocess.run(["tar", "-tzf", str(package)], check=True, capture_output=True, text=True).stdout
        files = {str(path.relative_to(CHART.parent)) for path in CHART.rglob("*") if path.is_file()}
        assert files - {"meterbridge/.helmignore"} <= set(listed.split())
        package.unlink()
