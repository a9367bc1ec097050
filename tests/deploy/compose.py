"""`docker compose` and `deploy/deploy.sh` in projects of their own: your containers are not touched, and nothing of
these stays.
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.kafka.yml"
LAGO_FILE = ROOT / "deploy" / "compose" / "lago.yml"
#: What reaches a command of the shell that runs this: none of its settings may reach the containers.
_KEPT = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_BUILDKIT")


class Failed(Exception):
    """A command failed, or a deployment is not in the expected state."""


class Compose:
    """One deployment of a compose file: `file`, as `project`, with the `.env` in `folder`."""

    def __init__(self, folder: Path, environment: Mapping[str, str], file: Path = FILE, project: str = "") -> None:
        self.file = file
        self.project = project or "meterbridge-deploy-test"
        self.env_file = folder / f"{self.project}.env"
        self.write(environment)

    def write(self, environment: Mapping[str, str]) -> None:
        """Write the `.env`."""
        example = (self.file.parent / ".env.example") if self.file.name == "lago.yml" else ROOT / "deploy/.env.example"
        given = [line for line in example.read_text().splitlines() if line and not line.startswith("#")]
        named = dict(line.split("=", 1) for line in given) | dict(environment)
        self.env_file.write_text("".join(f"{name}='{value}'\n" for name, value in named.items()))

    def value(self, name: str) -> str:
        """Return the value of a variable in the `.env`."""
        named = dict(line.split("=", 1) for line in self.env_file.read_text().splitlines() if "=" in line)
        return named[name].strip("'")

    def run(self, *words: str, limit_s: float = 300, strict: bool = True) -> str:
        """Return the output of a `docker compose` command.

        Raises:
            Failed: it ended with another code than 0, or not in time; with the end of what it said.
        """
        code, out, err = self.ended(*words, limit_s=limit_s)
        if code and strict:
            raise Failed(f"docker compose {' '.join(words)} ended with {code}:\n{(err + out)[-3000:]}")
        return out

    def ended(self, *words: str, limit_s: float = 300) -> tuple[int, str, str]:
        """Return the exit code of a `docker compose` command, and its output. Raises: Failed: it did not end in time."""
        whole = ["docker", "compose", "-f", str(self.file), "--env-file", str(self.env_file), *words]
        return self.started(whole, limit_s)

    def script(self, *words: str, limit_s: float = 300) -> str:
        """Return the output of `deploy/deploy.sh`. Raises: Failed: as `run`."""
        lago = ["--lago"] if self.file.name == "lago.yml" else []
        whole = [str(ROOT / "deploy" / "deploy.sh"), *lago, "--env-file", str(self.env_file), *words]
        code, out, err = self.started(whole, limit_s)
        if code:
            raise Failed(f"deploy.sh {' '.join(words)} ended with {code}:\n{(err + out)[-3000:]}")
        return out

    def started(self, whole: list[str], limit_s: float) -> tuple[int, str, str]:
        """Return the exit code of any command in this project, and its output. Raises: Failed: it did not end in time."""
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        try:
            done = subprocess.run(
                whole,
                env=kept | {"COMPOSE_PROJECT_NAME": self.project},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{' '.join(whole)} did not end within {limit_s:.0f} s") from error
        return done.returncode, done.stdout, done.stderr

    def command(self, *words: str) -> Any:
        """Return the JSON answer of a command of the product, in the service `tools`."""
        return self.commands(words)[0]

    def commands(self, *several: Sequence[str], limit_s: float = 240) -> list[Any]:
        """Return the JSON answers of commands of the product, in one container: a new one would compile every module
        first.
        """
        each = "; echo; ".join(f"meterbridge {' '.join(words)} --json" for words in several)
        _, out, err = self.ended("run", "--rm", "-T", "--entrypoint", "sh", "tools", "-c", each, limit_s=limit_s)
        answers = [part for part in out.split("\n\n") if part.strip()]
        if len(answers) != len(several) or not all(one.strip().startswith(("{", "[")) for one in answers):
            raise Failed(f"{each}: {(out + err)[-2000:]}")
        return [json.loads(one) for one in answers]

    def can_have(self, service: str, *options: str) -> bool:
        """Whether the image of a service exists here, or can be pulled. `options` are those of `docker compose`."""
        image = json.loads(self.run(*options, "config", "--format", "json"))["services"][service]["image"]
        try:
            docker("image", "inspect", image)
        except Failed:
            return not self.ended(*options, "pull", "--quiet", service)[0]
        return True

    def states(self) -> dict[str, str]:
        """Return the health of every running container."""
        lines = self.run("ps", "--format", "json").splitlines()
        found = [json.loads(line) for line in lines]
        return {one["Service"]: one["Health"] or one["State"] for one in found}

    def remove(self) -> None:
        """Remove everything that was created for it, its data too."""
        self.ended("--profile", "*", "down", "--volumes", "--remove-orphans")


def docker(*words: str, limit_s: float = 300) -> str:
    """Return the output of a `docker` command. Raises: Failed: its exit code is not 0."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=limit_s, check=False)
    if done.returncode:
        raise Failed(f"docker {' '.join(words)} ended with {done.returncode}:\n{(done.stderr + done.stdout)[-2000:]}")
    return done.stdout.strip()


def engine() -> str:
    """Return which engine answers; "" if there is none."""
    try:
        return docker("info", "--format", "{{.ServerVersion}}", limit_s=20)
    except (OSError, subprocess.TimeoutExpired, Failed):
        return ""
