"""The image's list of components (SBOM) has exactly the packages of the lock file, and is the same on every machine."""

import runpy
from pathlib import Path
from typing import Any

DEPLOY = Path(__file__).parents[3] / "deploy"
LOCK = (DEPLOY / "requirements.lock").read_text()


def listed() -> dict[str, Any]:
    found: dict[str, Any] = runpy.run_path(str(DEPLOY / "sbom.py"))["sbom"](LOCK)
    return found


def test_every_locked_package_is_listed_with_its_version_its_hashes_and_its_licence() -> None:
    found = listed()
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.5")
    parts = {part["name"]: part for part in found["components"]}
    assert f"{parts['msgspec']['name']}=={parts['msgspec']['version']} " in LOCK
    assert len(parts) == LOCK.count("==")
    assert sum(len(part["hashes"]) for part in parts.values()) == LOCK.count("--hash=sha256:")
    assert parts["msgspec"]["purl"] == f"pkg:pypi/msgspec@{parts['msgspec']['version']}"
    assert parts["confluent-kafka"]["licenses"] == [{"license": {"name": "Apache Software License"}}]
    assert [name for name, part in parts.items() if "licenses" not in part] == []
    assert found["metadata"]["component"]["name"] == "meterbridge"


def test_the_list_is_the_same_whenever_it_is_generated() -> None:
    assert listed() == listed()
