"""Writes what the chart takes from elsewhere: `make chart`, or `python -m deploy.helm.generate`.

- `values.schema.json` and `README.md`, from values.yaml;
- `files/*.yaml`, from the topics, the rights and the compose file;
- `files/rules/` and `files/dashboards/`, copies of deploy/prometheus/rules and deploy/grafana.

A test compares all of them (tests/unit/repository/test_chart.py).
"""

import json
from pathlib import Path
from typing import Any, Final

import yaml

from deploy.helm.kafka_files import rights, roles, topics
from deploy.helm.values_reader import Value, values_of
from deploy.helm.values_schema import schema

CHART: Final = Path(__file__).parent / "meterbridge"
_DEPLOY: Final = Path(__file__).parents[1]
_MADE: Final = "# Made by `make chart`.\n"
#: Folders of the chart that are copies, each with its source and what is taken of it.
COPIED: Final = {"files/rules": ("prometheus/rules", "*.yml"), "files/dashboards": ("grafana", "**/*.json")}
_README: Final = """# meterbridge

The Helm chart of Meterbridge. [docs/kubernetes.md](../../../docs/kubernetes.md) says how to install, scale and upgrade it.
This page is made from values.yaml by `make chart`. The roles api, meter, sink, retry and project have the keys that
`webhooks` has, workers those of `meter.keda`.

| value | default | meaning |
|---|---|---|
"""


def files() -> dict[str, str]:
    """Path in the chart's folder and text of every file that is made."""
    values = values_of((CHART / "values.yaml").read_text(encoding="utf-8"))
    made = {
        "values.schema.json": json.dumps(schema(values), indent=1) + "\n",
        "README.md": _README + "".join(_row(value) for value in values if value.meaning),
        "files/topics.yaml": _yaml(topics()),
        "files/acls.yaml": _yaml(rights()),
        "files/roles.yaml": _yaml(roles()),
    }
    for folder, (source, pattern) in COPIED.items():
        for path in sorted((_DEPLOY / source).glob(pattern)):
            made[f"{folder}/{path.name}"] = path.read_text(encoding="utf-8")
    return made


def write() -> None:
    """Write every file, and remove copies whose source is gone."""
    made = files()
    for folder in COPIED:
        for path in (CHART / folder).glob("*"):
            if f"{folder}/{path.name}" not in made:
                path.unlink()
    for name, text in made.items():
        (CHART / name).parent.mkdir(parents=True, exist_ok=True)
        (CHART / name).write_text(text, encoding="utf-8")


def _yaml(document: dict[str, Any]) -> str:
    return _MADE + yaml.safe_dump(document, sort_keys=False, width=120)


def _row(value: Value) -> str:
    default = json.dumps(value.default)
    shown = f"`{default}`" if len(default) < 80 else "see values.yaml"
    return f"| `{value.name}` | {shown} | {value.meaning.replace('|', chr(92) + '|')} |\n"


if __name__ == "__main__":
    write()
