"""`make chart-test`: an upgrade changes nothing that Kubernetes refuses to change, and no name.

`immutable.yaml` is what the chart wrote before: where it differs now, `helm upgrade` of a running release would fail, or
would make a second set of everything. Write it with `python -m tests.chart.upgrade_checks` when a release may break that.
"""

from typing import Any

import pytest
import yaml

from tests.chart.rendering import HERE, SETS, Manifest, named, of_kind, rendered

RECORD = HERE / "immutable.yaml"
#: What people change in a running release.
CHANGES = (
    "image.tag=0.2.0",
    "commonLabels.team=other",
    "commonAnnotations.owner=other",
    "podLabels.tier=other",
    "podAnnotations.note=other",
    "settings.WINDOW_SECONDS=30",
    "webhooks.replicas=5",
    "webhooks.spool.maxSize=512MiB",
    "webhooks.resources.limits.memory=1Gi",
    "sink.keda.enabled=true",
    "networkPolicy.enabled=true",
    "tools.enabled=true",
)


def immutable(manifests: list[Manifest]) -> dict[str, Any]:
    """The values that the API server refuses to change, by kind and name; hooks are deleted before they are created
    again.
    """
    found: dict[str, Any] = {}
    for one in of_kind(manifests, "Deployment", "StatefulSet"):
        kept = ("selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates")
        found["/".join(named(one))] = {key: one["spec"][key] for key in kept if key in one["spec"]}
    for one in of_kind(manifests, "Service"):
        found["/".join(named(one))] = {"headless": one["spec"].get("clusterIP") == "None"}
    for one in of_kind(manifests, "KafkaTopic"):
        spec = one["spec"]
        found["/".join(named(one))] = {"topicName": spec["topicName"], "partitions": spec["partitions"]}
    return found


def record() -> str:
    return yaml.safe_dump({name: immutable(rendered(name)) for name in SETS}, width=120)


@pytest.mark.parametrize("name", SETS)
def test_an_upgrade_from_the_last_version_changes_no_immutable_value(name: str) -> None:
    before, now = yaml.safe_load(RECORD.read_text())[name], immutable(rendered(name))
    assert {key: now[key] for key in before if key in now} == before, "a workload that is gone has another name now"


@pytest.mark.parametrize("name", ["minimal", "hpa-gateway", "strimzi"])
def test_changed_values_change_no_immutable_value(name: str) -> None:
    before, after = immutable(rendered(name)), immutable(rendered(name, *CHANGES))
    assert {key: after[key] for key in before} == before


@pytest.mark.parametrize("value", ["webhooks.spool.size=30Gi", "webhooks.spool.storageClass=other"])
def test_only_the_volume_of_the_spool_cannot_be_changed_by_an_upgrade(value: str) -> None:
    """docs/kubernetes.md says what to do."""
    before, after = immutable(rendered("hpa-gateway")), immutable(rendered("hpa-gateway", value))
    assert {key for key in before if before[key] != after[key]} == {"StatefulSet/mb-meterbridge-webhooks"}


def test_a_pod_is_replaced_when_its_image_or_its_setting_has_changed() -> None:
    for change in ("image.tag=0.2.0", "settings.LOG_LEVEL=DEBUG"):
        pairs = zip(rendered("minimal"), rendered("minimal", change), strict=True)
        changed = {named(old) for old, new in pairs if old["kind"] in {"Deployment", "StatefulSet"} and old != new}
        assert len(changed) == 5


if __name__ == "__main__":
    RECORD.write_text(record())
