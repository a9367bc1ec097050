"""`docker compose` and `deploy/deploy.sh` on projects of their own: nothing of yours is touched, and nothing of them stays."""

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
    """A command ended badly, or a deployment is not as it must be."""


class Compose:
    """One deployment of a compose file: `file`, as `project`, with the `.env` in `folder`."""

    def __init__(self, folder: Path, environment: Mapping[str, str], file: Path = FILE, project: str = "") -> None:
        self.file = file
        self.project = project or "meterbridge-deploy-test"
        self.env_file = folder / f"{self.project}.env"
        self.write(environment)

    def write(self, environment: Mapping[str, str]) -> None:
        """The `.env` from now on."""
        example = (self.file.parent / ".env.example") if self.file.name == "lago.yml" else ROOT / "deploy/.env.example"
        given = [line for line in example.read_text().splitlines() if line and not line.startswith("#")]
        named = dict(line.split("=", 1) for line in given) | dict(environment)
        self.env_file.write_text("".join(f"{name}='{value}'\n" for name, value in named.items()))

    def value(self, name: str) -> str:
        """Of a variable in the `.env`."""
        named = dict(line.split("=", 1) for line in self.env_file.read_text().splitlines() if "=" in line)
        return named[name].strip("'")

    def run(self, *words: str, limit_s: float = 300, strict: bool = True) -> str:
        """What a command of `docker compose` printed.

        Raises:
            Failed: it ended with another code than 0, or not in time; with the end of what it said.
        """
        code, out, err = self.ended(*words, limit_s=limit_s)
        if code and strict:
            raise Failed(f"docker compose {' '.join(words)} ended with {code}:\n{(err + out)[-3000:]}")
        return out

    def ended(self, *words: str, limit_s: float = 300) -> tuple[int, str, str]:
        """The code of a command of `docker compose`, and what it printed. Raises: Failed: it did not end in time."""
        whole = ["docker", "compose", "-f", str(self.file), "--env-file", str(self.env_file), *words]
        return self.started(whole, limit_s)

    def script(self, *words: str, limit_s: float = 300) -> str:
        """What `deploy/deploy.sh` printed. Raises: Failed: as `run`."""
        lago = ["--lago"] if self.file.name == "lago.yml" else []
        whole = [str(ROOT / "deploy" / "deploy.sh"), *lago, "--env-file", str(self.env_file), *words]
        code, out, err = self.started(whole, limit_s)
        if code:
            raise Failed(f"deploy.sh {' '.join(words)} ended with {code}:\n{(err + out)[-3000:]}")
        return out

    def started(self, whole: list[str], limit_s: float) -> tuple[int, str, str]:
        """The code of any command, in this project, and what it printed. Raises: Failed: it did not end in time."""
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
        """The JSON answer of a command of the product, in the service `tools`."""
        return self.commands(words)[0]

    def commands(self, *several: Sequence[str], limit_s: float = 240) -> list[Any]:
        """The JSON answers of commands of the product, in one container: a new one compiles every module first."""
        each = "; echo; ".join(f"meterbridge {' '.join(words)} --json" for words in several)
        _, out, err = self.ended("run", "--rm", "-T", "--entrypoint", "sh", "tools", "-c", each, limit_s=limit_s)
        answers = [part for part in out.split("\n\n") if part.strip()]
        if len(answers) != len(several) or not all(one.strip().startswith(("{", "[")) for one in answers):
            raise Failed(f"{each}: {(out + err)[-2000:]}")
        return [json.loads(one) for one in answers]

    def can_have(self, service: str, *options: str) -> bool:
        """Whether the image of a service is here, or can be pulled. `options` are those of `docker compose`."""
        image = json.loads(self.run(*options, "config", "--format", "json"))["services"][service]["image"]
        try:
            docker("image", "inspect", image)
        except Failed:
            return not self.ended(*options, "pull", "--quiet", service)[0]
        return True

    def states(self) -> dict[str, str]:
        """Of every container that runs: its health."""
        lines = self.run("ps", "--format", "json").splitlines()
        found = [json.loads(line) for line in lines]
        return {one["Service"]: one["Health"] or one["State"] for one in found}

    def remove(self) -> None:
        """Everything that was made of it, its data too."""
        self.ended("--profile", "*", "down", "--volumes", "--remove-orphans")


def docker(*words: str, limit_s: float = 300) -> str:
    """What a command of `docker` printed. Raises: Failed: it ended with another code than 0."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=limit_s, check=False)
    if done.returncode:
        raise Failed(f"docker {' '.join(words)} ended with {done.returncode}:\n{(done.stderr + done.stdout)[-2000:]}")
    return done.stdout.strip()


def engine() -> str:
    """Which engine answers; "" when there is none."""
    try:
        return docker("info", "--format", "{{.ServerVersion}}", limit_s=20)
    except (OSError, subprocess.TimeoutExpired, Failed):
        return ""
