"""What the image is made of, as a CycloneDX list on standard output: `python deploy/sbom.py deploy/requirements.lock`.

It has the packages of the lock file with the hashes that pip has checked, and with the licences that they name, and ours. The
base image's own packages are not in it: scan the image for those.
"""

import json
import re
import sys
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

_PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s\\;]+)", re.MULTILINE)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
OURS = "meterbridge"


def sbom(lock: str) -> dict[str, Any]:
    """The list, for the text of a lock file; nothing in it depends on when or where it is made."""
    found = list(_PINNED.finditer(lock))
    ends = [match.start() for match in found[1:]] + [len(lock)]
    parts = [
        component(match[1], match[2], _HASH.findall(lock[match.end() : end]))
        for match, end in zip(found, ends, strict=True)
    ]
    ours = metadata(OURS)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": component(OURS, ours["Version"], []) | {"type": "application"}},
        "components": parts,
    }


def component(name: str, version: str, hashes: list[str]) -> dict[str, Any]:
    """One package; `hashes` are of each of its files, of which one machine installs one."""
    purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
    component: dict[str, Any] = {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}
    if licence := _licence(name):
        component["licenses"] = [{"license": {"name": licence}}]
    if hashes:
        component["hashes"] = [{"alg": "SHA-256", "content": content} for content in hashes]
    return component


def _licence(name: str) -> str:
    """As its metadata has it; some have the whole text there, of which the first line is the name."""
    try:
        found = metadata(name)
    except PackageNotFoundError:
        return ""
    named = [line.rpartition(" :: ")[2] for line in found.get_all("Classifier") or [] if line.startswith("License ::")]
    text = found.get("License-Expression") or ", ".join(named) or found.get("License") or ""
    return text.strip().partition("\n")[0][:100]


if __name__ == "__main__":
    json.dump(sbom(Path(sys.argv[1]).read_text()), sys.stdout, indent=1)
