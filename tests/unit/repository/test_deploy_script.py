"""`deploy/deploy.sh` with a stand-in for `docker`: the order of a backup, and what a restore refuses before it changes
anything.
"""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "deploy" / "deploy.sh"
#: Notes what it is asked, and answers as an installation does that runs. `$VOLUMES` are those that there are.
DOCKER = """#!/usr/bin/env bash
printf '%s\\n' "$*" | sed 's/--env-file [^ ]* --file [^ ]* //' >>"$0.asked"
case "$*" in
  *"volume ls"*) echo "$VOLUMES" ;;
  *"ps --quiet"*) echo 0123456789ab ;;
  *"ps --services"*) printf '%s\\n' kafka postgres ingress worker api ;;
  *"ps --all --format"*) printf '%s\\n' "${STATES:-worker running healthy 0}" ;;
  *" config"*) echo 'name: trial' ;;
  *pg_dump*) [ -z "$NO_DUMP" ] || exit 1; echo rows ;;
  *" -czf "*) echo log ;;
esac
"""


class Machine:
    """A folder with the stand-in for `docker`, its settings, and its recorded calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._docker = folder / "bin" / "docker"
        self._docker.parent.mkdir()
        self._docker.write_text(DOCKER)
        self._docker.chmod(0o755)
        (folder / ".env").write_text("POSTGRES_PASSWORD=word\n")

    def run(self, *words: str, **variables: str) -> tuple[int, str]:
        """The script's exit code, and its output."""
        path = f"{self._docker.parent}:{os.environ['PATH']}"
        done = subprocess.run(
            [str(SCRIPT), "--env-file", str(self.folder / ".env"), *words],
            env={"PATH": path, "VOLUMES": "", "NO_DUMP": "", **variables},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return done.returncode, done.stdout + done.stderr

    def asked(self) -> list[str]:
        """The arguments of `docker` since the last check."""
        notes = Path(f"{self._docker}.asked")
        lines = notes.read_text().splitlines()
        notes.unlink()
        return [line.removeprefix("compose ") for line in lines if not line.endswith("compose version")]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def saved(folder: Path, told: str = "docker-compose.kafka.yml last") -> Path:
    """A backup as the script writes it."""
    folder.mkdir()
    for name, text in (("backup.txt", told), ("meterbridge.dump", "rows"), ("kafka.tar.gz", "log")):
        (folder / name).write_text(text + "\n")
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in sorted(folder.iterdir())]
    (folder / "SHA256SUMS").write_text("\n".join(sums) + "\n")
    return folder


def test_a_backup_saves_postgres_before_kafka_while_nothing_reads_and_restarts_everything(machine: Machine) -> None:
    code, said = machine.run("backup", str(machine.folder / "new"))
    assert code == 0, said
    steps = [line for line in machine.asked() if not line.startswith("ps")]
    assert [step.split(" --")[0] for step in steps] == [
        "stop worker",
        "exec -T postgres pg_dump",
        "stop kafka",
        "run",
        "up",
    ], steps
    assert "tar kafka -C /var/lib/kafka/data -czf" in steps[3]
    assert (machine.folder / "new" / "backup.txt").read_text().startswith("docker-compose.kafka.yml earlier 2")
    assert {path.stat().st_mode & 0o077 for path in (machine.folder / "new").iterdir()} == {0}, "for its owner alone"


def test_with_stop_no_calls_are_accepted_before_the_copy_and_nothing_runs_afterwards(machine: Machine) -> None:
    code, said = machine.run("backup", "--stop", str(machine.folder / "new"))
    assert code == 0, said
    steps = [line for line in machine.asked() if not line.startswith("ps")]
    assert steps[0] == "stop ingress worker api"
    assert "tar ingress -C /var/lib/meterbridge/spool -czf" in steps[4], "what was answered with 202"
    assert steps[-1] == "stop" and not [step for step in steps if step.startswith("up")]
    assert (machine.folder / "new" / "backup.txt").read_text().startswith("docker-compose.kafka.yml last 2")


def test_a_failed_backup_restarts_everything_and_reports_the_failure(machine: Machine) -> None:
    code, _ = machine.run("backup", str(machine.folder / "new"), NO_DUMP="1")
    assert code != 0
    assert machine.asked()[-1].startswith("up --detach --wait")
    assert not (machine.folder / "new" / "SHA256SUMS").exists(), "it cannot be restored"


@pytest.mark.parametrize(
    "words", [("backup",), ("backup", "--stop"), ("backup", "there"), ("restore",), ("restore", "there")]
)
def test_a_backup_needs_a_new_folder_and_a_restore_a_complete_backup(machine: Machine, words: tuple[str, ...]) -> None:
    (machine.folder / "there").mkdir()
    code, said = machine.run(*[str(machine.folder / word) if word == "there" else word for word in words])
    assert code == 2 and "deploy.sh: " in said


@pytest.mark.parametrize(
    ("told", "volumes", "reason"),
    [
        ("docker-compose.kafka.yml earlier", "", "Names of events would be used twice"),
        ("lago.yml last", "", "this is a backup of lago.yml"),
        ("docker-compose.kafka.yml last", "trial_kafka-data", "the installation trial has data"),
    ],
)
def test_a_restore_that_would_lose_or_overwrite_data_is_refused_before_it_changes_anything(
    machine: Machine, told: str, volumes: str, reason: str
) -> None:
    code, said = machine.run("restore", str(saved(machine.folder / "old", told)), VOLUMES=volumes)
    assert code == 2 and reason in said
    notes = Path(f"{machine.folder}/bin/docker.asked").read_text()
    assert "pg_restore" not in notes and " up " not in notes


def test_a_changed_file_is_not_restored(machine: Machine) -> None:
    folder = saved(machine.folder / "old")
    (folder / "kafka.tar.gz").write_text("other\n")
    code, said = machine.run("restore", str(folder))
    assert code == 1 and "is not what was written" in said


@pytest.mark.parametrize("words", [(), ("--behind",)])
def test_a_restore_fills_postgres_and_kafka_and_starts_no_billing_role(
    machine: Machine, words: tuple[str, ...]
) -> None:
    result = "docker-compose.kafka.yml earlier" if words else "docker-compose.kafka.yml last"
    code, said = machine.run("restore", str(saved(machine.folder / "old", result)), *words)
    assert code == 0, said
    steps = machine.asked()
    assert steps[-3].startswith("up --detach --wait postgres")
    assert "pg_restore --exit-on-error" in steps[-2] and "tar kafka -C /var/lib/kafka/data -xzf" in steps[-1]


@pytest.mark.parametrize(
    ("states", "code"),
    [
        ("worker running healthy 0", 0),
        ("topics exited  0", 0),
        ("lago-clock running  0", 0),
        ("worker running unhealthy 0", 1),
        ("worker running starting 0", 1),
        ("topics exited  1", 1),
        ("worker restarting  1", 1),
    ],
)
def test_status_ends_with_1_if_a_container_is_neither_healthy_nor_done(
    machine: Machine, states: str, code: int
) -> None:
    ended, said = machine.run("status", STATES=states)
    assert ended == code
    assert (states.split(maxsplit=1)[0] in said) is (code == 1)
