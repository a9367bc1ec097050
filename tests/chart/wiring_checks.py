"""`make chart-test`: parts of a release refer to each other correctly, and unchanged parts are not restarted."""

import json
import re

import pytest
import yaml

from streams.app import ROLES
from streams.runtime.shutdown import STOP_S
from tests.chart.rendering import CHART, SETS, component, named, of_kind, pods, rendered

DEPLOY = CHART.parents[1]


def test_a_changed_secret_of_the_chart_restarts_pods() -> None:
    before, after = (pods(rendered("minimal", *more)) for more in ((), ("secrets.LAGO_API_KEY=other",)))
    sums = [pod["metadata"]["annotations"]["checksum/secrets"] for pod in (before["sink"], after["sink"])]
    assert len(sums[0]) == 64 and sums[0] != sums[1]


def test_a_changed_setting_restarts_only_the_roles_that_read_it() -> None:
    before, after = (pods(rendered("existing-secrets", *more)) for more in ((), ("settings.WEBHOOK_TOLERANCE=60",)))
    assert {role for role in before if before[role] != after[role]} == {"webhooks", "tools"}


def test_the_jobs_run_in_their_order_with_what_exists_before_the_release() -> None:
    manifests = [
        one for one in rendered("network-policies") if "helm.sh/hook" in one["metadata"].get("annotations", {})
    ]
    before = {named(one): one for one in manifests if one["metadata"]["annotations"]["helm.sh/hook"] != "test"}
    weights = {key: int(one["metadata"]["annotations"]["helm.sh/hook-weight"]) for key, one in before.items()}
    jobs = [("Job", "mb-meterbridge-topics"), ("Job", "mb-meterbridge-tables")]
    assert sorted(weights, key=lambda key: weights[key])[-2:] == jobs
    for key in jobs:
        spec = before[key]["spec"]["template"]["spec"]
        assert ("ServiceAccount", spec["serviceAccountName"]) in before
        for volume in [volume for volume in spec["volumes"] if "projected" in volume]:
            for source in volume["projected"]["sources"]:
                assert ("Secret", source["secret"]["name"]) in before
    assert ("NetworkPolicy", "mb-meterbridge-hooks") in before


@pytest.mark.parametrize("name", SETS)
def test_every_selector_matches_pods(name: str) -> None:
    manifests = rendered(name)
    labels = [pod["metadata"]["labels"] for pod in pods(manifests).values()]
    labels += [one["metadata"]["labels"] for one in of_kind(manifests, "Pod")]
    for manifest in of_kind(manifests, "Service", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor"):
        spec = manifest["spec"]
        selector = spec.get("podSelector", spec.get("selector"))
        wanted = selector.get("matchLabels", selector) if manifest["kind"] != "Service" else selector
        assert any(wanted.items() <= found.items() for found in labels), named(manifest)
    workloads = {named(one) for one in of_kind(manifests, "Deployment", "StatefulSet")}
    for scaler in of_kind(manifests, "HorizontalPodAutoscaler", "ScaledObject"):
        target = scaler["spec"]["scaleTargetRef"]
        assert (target.get("kind", "Deployment"), target["name"]) in workloads
        [scaled] = [one for one in manifests if named(one) == (target.get("kind", "Deployment"), target["name"])]
        assert "replicas" not in scaled["spec"], "an upgrade would undo what was scaled"
    services = {name for kind, name in map(named, manifests) if kind == "Service"}
    routed = re.findall(
        r'"(mb-meterbridge-(?:webhooks|api)|billing-(?:webhooks|api))"',
        json.dumps(of_kind(manifests, "Ingress", "HTTPRoute")),
    )
    assert set(routed) <= services


def test_network_policies_let_each_role_reach_only_what_it_needs() -> None:
    reached = {
        component(one): {port["port"] for rule in one["spec"]["egress"] for port in rule["ports"]}
        for one in of_kind(rendered("network-policies"), "NetworkPolicy")
    }
    dns, kafka, lago, postgres, others, ingress = {53}, {9092, 9094}, {3000}, {5432}, {443}, {8080}
    assert reached["webhooks"] == reached["meter"] == reached["sink"] == reached["retry"] == dns | kafka | lago
    assert reached["project"] == dns | kafka | lago | postgres
    assert reached["api"] == dns | kafka | lago | postgres | others
    assert reached["tools"] == reached["api"] | ingress
    assert reached["canary"] == dns | lago | ingress
    assert reached[""] == dns | kafka | postgres, "the jobs"


def test_an_ingress_with_a_spool_is_never_scaled_down_automatically() -> None:
    behaviours = {
        component(one): one["spec"]["behavior"] for one in of_kind(rendered("hpa-gateway"), "HorizontalPodAutoscaler")
    }
    assert behaviours["webhooks"]["scaleDown"] == {"selectPolicy": "Disabled"}
    [without] = of_kind(rendered("no-spool"), "HorizontalPodAutoscaler")
    assert "selectPolicy" not in without["spec"]["behavior"]["scaleDown"]


@pytest.mark.parametrize("name", SETS)
def test_no_rollout_and_no_scaling_loses_usage(name: str) -> None:
    manifests = rendered(name)
    for one in of_kind(manifests, "StatefulSet"):
        assert one["spec"]["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    for one in of_kind(manifests, "Deployment"):
        if component(one) in ROLES:
            assert one["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    for pod in pods(manifests).values():
        assert pod["spec"]["terminationGracePeriodSeconds"] > STOP_S + 5, "SIGTERM comes after preStop"


def test_the_operator_gets_every_alarm_and_grafana_every_dashboard_with_its_runbook() -> None:
    manifests = rendered("keda", "metrics.runbooks=https://git.example.org/billing/")
    sources = {path.stem: yaml.safe_load(path.read_text()) for path in (DEPLOY / "prometheus" / "rules").glob("*.yml")}
    created = {
        one["metadata"]["name"].removeprefix("mb-meterbridge-"): one for one in of_kind(manifests, "PrometheusRule")
    }
    assert created.keys() == sources.keys() and created
    base = yaml.safe_load(
        json.dumps(sources).replace("https://meterbridge.example/", "https://git.example.org/billing/")
    )
    assert {name: one["spec"] for name, one in created.items()} == base
    assert all(one["metadata"]["labels"]["release"] == "prometheus" for one in created.values())
    boards = [one["data"] for one in of_kind(manifests, "ConfigMap")]
    names = {name for board in boards for name in board}
    assert names == {path.name for path in (DEPLOY / "grafana").glob("*.json")}
    assert all(
        json.loads(text)["panels"] and "meterbridge.example" not in text for board in boards for text in board.values()
    )


@pytest.mark.parametrize(("name", "kind"), [("keda", "PodMonitor"), ("hpa-gateway", "ServiceMonitor")])
def test_scraped_pods_have_the_job_label_that_the_alarms_use(name: str, kind: str) -> None:
    [monitor] = of_kind(rendered(name, "nameOverride=billing"), kind)
    [endpoint] = monitor["spec"].get("endpoints", monitor["spec"].get("podMetricsEndpoints"))
    [job] = [one["replacement"] for one in endpoint["relabelings"] if one["targetLabel"] == "job"]
    rules = "".join(path.read_text() for path in (DEPLOY / "prometheus" / "rules").glob("*.yml"))
    asked = re.findall(r'job=~"([^"]+)"', rules)
    assert asked and all(re.fullmatch(pattern, job) for pattern in asked)
