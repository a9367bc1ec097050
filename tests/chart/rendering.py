"""Renders the chart, and finds parts of the result."""

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.chart.tools import helm

HERE = Path(__file__).parent
CHART = HERE.parents[1] / "deploy" / "helm" / "meterbridge"
SETS = sorted(path.stem for path in (HERE / "values").glob("*.yaml"))

Manifest = dict[str, Any]


class NotRendered(Exception):
    """Helm refused the values; the text is its output."""


@cache
def _text(version: str, name: str, more: tuple[str, ...]) -> str:
    command = [helm(version), "template", "mb", str(CHART), "--namespace", "billing"]
    files = ["-f", str(HERE / "values" / f"{name}.yaml")] if name else []
    sets = [word for one in more for word in ("--set-json" if one[-1] in "}]" else "--set", one)]
    result = subprocess.run([*command, *files, *sets], capture_output=True, text=True, check=False)
    if result.returncode:
        raise NotRendered(result.stderr)
    return result.stdout


def rendered(name: str, *more: str, version: str = "helm-4.1") -> list[Manifest]:
    """The manifests of a set of values; `more` are arguments of `--set`. Raises: NotRendered."""
    return [document for document in yaml.safe_load_all(_text(version, name, more)) if document]


def written(name: str) -> str:
    """Return the values as text."""
    return _text("helm-4.1", name, ())


def named(manifest: Manifest) -> tuple[str, str]:
    """Kind and name."""
    return manifest["kind"], manifest["metadata"]["name"]


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def component(manifest: Manifest) -> str:
    """The role that a manifest belongs to; `""` = all."""
    return str(manifest["metadata"]["labels"].get("app.kubernetes.io/component", ""))


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """The pod template of each workload and job, by component."""
    found = of_kind(manifests, "Deployment", "StatefulSet", "Job")
    return {component(manifest): manifest["spec"]["template"] for manifest in found}


def container(pod: Manifest) -> Manifest:
    [only] = pod["spec"]["containers"]
    return dict(only)


def variables(pod: Manifest) -> dict[str, str]:
    """The variables of a pod's container."""
    return {entry["name"]: entry["value"] for entry in container(pod)["env"]}
