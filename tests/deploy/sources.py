"""A copy of what the image is built from: edited, or with an `.env` of its own, it leaves the work tree as it is."""

import shutil
from pathlib import Path

from tests.deploy.compose import ROOT

_PARTS = (
    "schemas",
    "streams",
    "connectors",
    "deploy",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "docker-compose.kafka.yml",
)
_LEFT_OUT = shutil.ignore_patterns("__pycache__", ".venv", "node_modules", ".env")


def copied(copy: Path) -> None:
    """Make the folder `copy`, with everything that `docker compose up --build` reads."""
    copy.mkdir(parents=True)
    for part in _PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, copy / part, ignore=_LEFT_OUT)
        else:
            shutil.copy(source, copy)
