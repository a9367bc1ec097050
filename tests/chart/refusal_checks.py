"""`make chart-test`: impossible values end `helm install` with a sentence, in every generation of Helm."""

import re

import pytest

from tests.chart.rendering import NotRendered, rendered
from tests.chart.tools import HELMS


@pytest.mark.parametrize(
    ("name", "more", "sentence"),
    [
        ("minimal", "meter.replicas=13", "13, but its topic has 12 partitions"),
        ("minimal", "retry.replicas=9", "9, but its topic has 8 partitions"),
        ("keda", "sink.keda.maxReplicas=13", "13, but its topic has 12 partitions"),
        ("keda", "meter.keda.minReplicas=13", "larger than maxReplicas"),
        ("hpa-gateway", "api.autoscaling.maxReplicas=1", "larger than maxReplicas"),
        ("minimal", "webhooks.spool.size=1Gi", "too small"),
        ("minimal", "kafka.bootstrapServers=", "kafka.bootstrapServers is needed"),
        ("minimal", "lago.url=", "lago.url is needed"),
        ("minimal", "secrets.WEBHOOK_TOKEN=", "no WEBHOOK_TOKEN and no WEBHOOK_SECRET"),
        ("minimal", "secrets.LAGO_API_KEY=", "no LAGO_API_KEY"),
        ("minimal", "kafka.securityProtocol=SASL_SSL", "kafka.saslUsername is needed"),
        ("tls-sasl", "existingSecretKeys.KAFKA_SASL_PASSWORD=", "has no KAFKA_SASL_PASSWORD"),
        ("strimzi", "kafka.securityProtocol=SSL", "strimzi.users needs"),
        ("strimzi-tls", "kafka.securityProtocol=SASL_SSL", "strimzi.users.authentication tls needs"),
        ("strimzi-tls", "strimzi.topics.enabled=false", "runs before strimzi.users exist"),
        ("minimal", "kafka.tls.clientSecret=kafka", "kafka.tls.clientSecret is not used by"),
        ("strimzi", "strimzi.cluster=", "strimzi.cluster is needed"),
        ("strimzi", "strimzi.topics.enabled=false", "runs before strimzi.users exist"),
        ("keda", "metrics.serviceMonitor.enabled=true", "counted twice"),
        ("hpa-gateway", "httpRoute.parentRefs=[]", "httpRoute.parentRefs is needed"),
    ],
)  # fmt: skip
def test_contradictory_values_are_refused_with_a_sentence(name: str, more: str, sentence: str) -> None:
    with pytest.raises(NotRendered, match=re.escape(sentence)):
        rendered(name, more)


@pytest.mark.parametrize("version", HELMS)
@pytest.mark.parametrize(
    ("more", "word"),
    [
        ("meter.replicaz=3", "replicaz"),
        ("settings.WINDOW_SECOND=3", "WINDOW_SECOND"),
        ("settings.WINDOW_SECONDS=soon", "WINDOW_SECONDS"),
        ("settings.POD_NAME=a", "POD_NAME"),
        ("webhooks.replicas=two", "replicas"),
        ("image.digest=latest", "digest"),
    ],
)
def test_a_misspelt_name_and_a_wrong_type_are_refused_by_every_helm(more: str, word: str, version: str) -> None:
    with pytest.raises(NotRendered, match=word):
        rendered("minimal", more, version=version)
