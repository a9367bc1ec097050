"""`make chart-test`: the commands on docs/kubernetes.md run unchanged, without a cluster.

`helm install` and `helm upgrade` render the chart with the same words, and `kubectl` writes down what it was asked.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.chart.rendering import HERE, Manifest, component, container, named, of_kind, pods
from tests.chart.tools import HELMS, helm
from tests.support.page_shell import ROOT, Block, blocks

PAGE = list(blocks(ROOT / "docs" / "kubernetes.md"))
#: `--reuse-values` takes the words of the installation; what waits for a cluster is left out.
HELM = """#!/bin/bash
[ "$1" = -n ] && shift 2
verb=$1 name=$2 words=()
shift 2
case $verb in install|upgrade) ;; test|uninstall) exit 0 ;; *) exit 9 ;; esac
for word in "$@"; do
  case $word in
    --wait|--timeout|1[05]m) ;;
    --reuse-values) mapfile -t -O "${#words[@]}" words < installed ;;
    *) words+=("$word") ;;
  esac
done
[ $verb = install ] && printf '%s\\n' "${words[@]:1}" > installed
number=$(ls made-* 2>/dev/null | wc -l)
PROGRAM template "$name" "${words[@]}" > "made-$number"
"""
KUBECTL = '#!/bin/sh\necho "$@" >> asked\n'


class Typed:
    """The results of the page's blocks, typed one after the other in one folder."""

    def __init__(self, folder: Path, version: str) -> None:
        self.folder = folder
        (folder / "deploy").symlink_to(ROOT / "deploy")
        (folder / "values.yaml").write_text((HERE / "values" / "network-policies.yaml").read_text())
        (folder / "programs").mkdir()
        for name, text in (("helm", HELM.replace("PROGRAM", helm(version))), ("kubectl", KUBECTL)):
            path = folder / "programs" / name
            path.write_text(text)
            path.chmod(0o700)
        for block in PAGE:
            self._type(block)
        self.asked = (folder / "asked").read_text().splitlines()
        found = sorted(folder.glob("made-*"), key=lambda path: int(path.name.partition("-")[2]))
        self.made: list[list[Manifest]] = [
            [document for document in yaml.safe_load_all(path.read_text()) if document] for path in found
        ]

    def _type(self, block: Block) -> None:
        secrets = {"LAGO_API_KEY": "a", "LITELLM_MASTER_KEY": "b", "POSTGRES_PASSWORD": "c"}
        environ = {"PATH": f"{self.folder / 'programs'}:{os.environ['PATH']}", "HOME": str(self.folder), **secrets}
        command = ["bash", "-euo", "pipefail", "-c", block.text]
        result = subprocess.run(command, cwd=self.folder, env=environ, capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"{block.place}: {result.stderr}"


@pytest.fixture(scope="module", params=HELMS)
def typed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Typed:
    return Typed(tmp_path_factory.mktemp("page"), request.param)


def test_the_installation_runs_every_role(typed: Typed) -> None:
    assert pods(typed.made[0]).keys() == {"webhooks", "api", "meter", "sink", "retry", "project", "topics", "tables"}
    assert "tools" in pods(typed.made[1])


def test_the_secret_of_the_page_has_every_key_that_the_installation_mounts(typed: Typed) -> None:
    [created] = [words for words in typed.asked if "create secret" in words]
    keys = set(re.findall(r"--from-literal=(\w+)=", created))
    mounted = {
        item["key"]
        for pod in pods(typed.made[0]).values()
        for volume in pod["spec"]["volumes"]
        for source in volume.get("projected", {}).get("sources", [])
        for item in source["secret"]["items"]
    }
    assert mounted == keys


def test_everything_that_kubectl_is_asked_for_exists(typed: Typed) -> None:
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    result = {name for _, name in map(named, typed.made[1])}
    asked = set(re.findall(r"(?:deploy|job|statefulset)[/ ](meterbridge-\w+)", text))
    assert asked and asked <= result
    kinds = {"deploy": "Deployment", "job": "Job"}
    for kind, name in re.findall(r"(deploy|job)/(meterbridge-\w+)", text):
        assert (kinds[kind], name) in map(named, typed.made[1])
    labels = of_kind(typed.made[1], "Deployment")[0]["metadata"]["labels"]
    assert labels["app.kubernetes.io/instance"] == "meterbridge"
    assert "http://meterbridge-webhooks.billing" in text
    [claims] = [one["spec"]["volumeClaimTemplates"] for one in of_kind(typed.made[1], "StatefulSet")]
    assert f"{claims[0]['metadata']['name']}-meterbridge-webhooks-0" in text


def test_the_upgrade_replaces_one_role_after_the_other_and_the_jobs_first(typed: Typed) -> None:
    order = ["project", "retry", "sink", "meter", "api", "webhooks"]
    steps = typed.made[2:]
    assert len(steps) == len(order)
    for number, manifests in enumerate(steps, 1):
        workloads = of_kind(manifests, "Deployment", "StatefulSet")
        images = {component(one): container(one["spec"]["template"])["image"].rpartition(":")[2] for one in workloads}
        assert {role for role in order if images[role] == "0.2.0"} == set(order[:number])
        assert {role for role in order if images[role] == "0.1.0"} == set(order[number:])
        jobs = [container(one["spec"]["template"])["image"] for one in of_kind(manifests, "Job")]
        assert jobs and all(image.endswith(":0.2.0") for image in jobs)
