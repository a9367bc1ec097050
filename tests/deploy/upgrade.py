"""A new version of the sources replaces the running one; nothing that both need is downloaded or installed again."""

import threading
from pathlib import Path

from tests.deploy.compose import Failed, docker
from tests.deploy.quick_start import IMAGE
from tests.deploy.sources import copied
from tests.deploy.trial import Trial, step


def upgrade(trial: Trial, folder: Path) -> None:
    """Build an edited copy, and replace every container while calls arrive."""
    copy = folder / "next"
    copied(copy)
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
