"""`docker compose` on a project of its own: nothing of yours is touched, and nothing of it stays."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.kafka.yml"
PROJECT = "meterbridge-deploy-test"


class Failed(Exception):
    """A command of Docker's ended badly."""


class Compose:
    """One deployment of the compose file."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self.write(environment)

    def write(self, environment: Mapping[str, str]) -> None:
        """The `.env` from now on."""
        example = (ROOT / "deploy" / ".env.example").read_text().splitlines()
        given = [line for line in example if line and not line.startswith("#")]
        named = dict(line.split("=", 1) for line in given) | dict(environment)
        (self._folder / ".env").write_text("".join(f"{name}='{value}'\n" for name, value in named.items()))

    def run(self, *words: str, limit_s: float = 300, strict: bool = True) -> str:
        """What a command printed.

        Raises:
            Failed: it ended with another code than 0, or not in time; with the end of what it said.
        """
        code, out, err = self.ended(*words, limit_s=limit_s)
        if code and strict:
            raise Failed(f"docker compose {' '.join(words)} ended with {code}:\n{(err + out)[-3000:]}")
        return out

    def ended(self, *words: str, limit_s: float = 300) -> tuple[int, str, str]:
        """The code of a command, and what it printed. Raises: Failed: it did not end in time."""
        env_file = str(self._folder / ".env")
        command = ["docker", "compose", "-p", PROJECT, "-f", str(FILE), "--env-file", env_file, "--profile", "sandbox"]
        # Nothing of this shell's settings may reach the containers.
        kept = {
            name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_HOST", "DOCKER_BUILDKIT") if name in os.environ
        }
        try:
            done = subprocess.run(
                [*command, *words],
                env=kept,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(f"docker compose {' '.join(words)} did not end within {limit_s:.0f} s") from error
        return done.returncode, done.stdout, done.stderr

    def command(self, *words: str, limit_s: float = 120) -> Any:
        """The JSON answer of a command of the product, in the service `tools`."""
        _, out, err = self.ended("run", "--rm", "-T", "tools", *words, "--json", limit_s=limit_s)
        if not out.strip().startswith(("{", "[")):
            raise Failed(f"meterbridge {' '.join(words)}: {(out + err)[-2000:]}")
        return json.loads(out)

    def states(self) -> dict[str, str]:
        """Of every container that runs: its health."""
        lines = self.run("ps", "--format", "json").splitlines()
        found = [json.loads(line) for line in lines]
        return {one["Service"]: one["Health"] or one["State"] for one in found}


def engine() -> str:
    """Which engine answers; "" when there is none."""
    try:
        done = subprocess.run(
            ["docker", "info", "--format", "{{.ServerVersion}}"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
