"""A copy of the image's sources: it may be edited or get its own `.env` without changing the work tree."""

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
    """Create the folder `copy`, with everything that `docker compose up --build` reads."""
    copy.mkdir(parents=True)
    for part in _PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, copy / part, ignore=_LEFT_OUT)
        else:
            shutil.copy(source, copy)
