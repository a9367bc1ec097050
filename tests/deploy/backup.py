"""`deploy.sh backup` while calls arrive, `backup --stop`, and `restore` into an installation without data."""

from pathlib import Path

from tests.deploy.compose import Failed, docker
from tests.deploy.quick_start import reconciled
from tests.deploy.trial import Trial, step


def backup_and_restore(trial: Trial, folder: Path) -> None:
    """The last state moves to new volumes; everything known before is known there, and billing continues."""
    with step("deploy.sh backup, while the ingress takes calls"):
        trial.compose.script("backup", str(folder / "earlier"))
        trial.post(2)
        trial.until_billed()
    with step("deploy.sh backup --stop"):
        trial.compose.script("backup", "--stop", str(folder / "last"))
        sizes = {path.name: path.stat().st_size for path in sorted((folder / "last").iterdir())}
        print(f"          {sizes}")
    with step("an installation with data is not overwritten, nor an older state taken for the last"):
        _refused(trial, "has data", "restore", str(folder / "last"))
        _refused(trial, "used twice", "restore", str(folder / "earlier"))
    with step("deploy.sh restore into new volumes, deploy, billed, reconcile --lago"):
        _forget(trial)
        trial.compose.script("restore", str(folder / "last"))
        trial.compose.script("deploy")
        story = trial.compose.command("explain", "--request", "try-1")
        if story["calls"][0]["event"]["status"] != "completed":
            raise Failed(f"after a restore explain says: {story}")
        trial.post()
        trial.until_billed()
        reconciled(trial)


def _forget(trial: Trial) -> None:
    """Delete every volume except that of the stand-in for Lago, which is another system."""
    trial.compose.run("down")
    for volume in ("kafka-data", "postgres-data", "ingress-spool", "worker-scratch"):
        docker("volume", "rm", f"{trial.compose.project}_{volume}")


def _refused(trial: Trial, reason: str, *words: str) -> None:
    try:
        trial.compose.script(*words)
    except Failed as error:
        if reason in str(error):
            return
        raise
    raise Failed(f"deploy.sh {' '.join(words)} did what it must refuse")
