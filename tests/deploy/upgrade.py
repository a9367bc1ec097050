"""A new version of the sources replaces the running one; nothing that both need is downloaded or installed again."""

import shutil
import threading
from pathlib import Path

from tests.deploy.compose import ROOT, Failed, docker
from tests.deploy.quick_start import IMAGE
from tests.deploy.trial import Trial, step

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
_LEFT_OUT = shutil.ignore_patterns("__pycache__", ".venv", "node_modules")


def upgrade(trial: Trial, folder: Path) -> None:
    """Build an edited copy, and replace every container while calls come."""
    copy = folder / "next"
    copy.mkdir()
    for part in _PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, copy / part, ignore=_LEFT_OUT)
        else:
            shutil.copy(source, copy)
    with (copy / "connectors" / "__init__.py").open("a") as edited:
        edited.write("# The next version.\n")
    before, trial.compose.file = trial.compose.file, copy / trial.compose.file.name
    old = _layers()
    with step("upgrade of the image under load"):
        over = threading.Event()
        sender = threading.Thread(target=lambda: _send(trial, over))
        sender.start()
        try:
            trial.compose.run("up", "--build", "--wait", limit_s=900)
        finally:
            over.set()
            sender.join()
        trial.until_billed()
    trial.compose.file = before
    kept = len([layer for layer in _layers() if layer in old])
    if not 0 < len(old) - kept == 1:
        raise Failed(f"an edit of the sources changes {len(old) - kept} layers of {len(old)}: only the last may")


def _send(trial: Trial, over: threading.Event) -> None:
    while not over.wait(1):
        trial.post(1)


def _layers() -> list[str]:
    return docker("image", "inspect", "--format", "{{range .RootFS.Layers}}{{.}} {{end}}", IMAGE).split()
