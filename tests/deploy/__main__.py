"""`make deploy-test`: the README's quick start on a real engine, what may happen to a deployment afterwards, and the tutorial.

It takes some minutes, the ports of the compose files and LiteLLM's 4000 on this machine, images that can be pulled, and LiteLLM from PyPI.
Everything it makes is removed. `python -m tests.deploy tutorial-compose.md` is a part alone.
"""

import sys
import tempfile
from pathlib import Path

from tests.deploy.accidents import down_and_up, kills, mistakes
from tests.deploy.backup import backup_and_restore
from tests.deploy.compose import FILE, LAGO_FILE, Compose, Failed, engine
from tests.deploy.lago import with_lago
from tests.deploy.page import PAGE, TypedPage
from tests.deploy.quick_start import commands, quick_start, usage_of_machine
from tests.deploy.trial import ENVIRONMENT, PRICE, Trial, elapsed_s
from tests.deploy.upgrade import upgrade
from tests.deploy.watching import watching


def main(parts: list[str]) -> int:
    """Return 0 if the deployments did what they should. `parts`: docker-compose.kafka.yml, lago.yml,
    tutorial-compose.md; none = all.
    """
    if not (version := engine()):
        print("no Docker engine answers: nothing was tried (DOCKER_HOST says where one is)")
        return 2
    print(f"Docker {version}, {FILE.name}, {LAGO_FILE.name}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trial, calls = Trial(Compose(folder, ENVIRONMENT)), 0
        page = TypedPage(folder)
        try:
            if not parts or PAGE.name in parts:
                page.first_step()
            if not parts or FILE.name in parts:
                _all_of(trial, folder)
            if not parts or LAGO_FILE.name in parts:
                calls = with_lago(folder)
            if not parts or PAGE.name in parts:
                page.rest()
        except Failed as error:
            print(f"FAILED: {error}\n{trial.compose.run('ps', '--all', strict=False)}")
            print(trial.compose.run("logs", "--tail", "15", "--no-log-prefix", strict=False)[-6000:])
            return 1
        finally:
            page.close()
            trial.compose.remove()
    calls += trial.sent
    print(f"{calls} calls, {calls * PRICE} USD, each billed once, {elapsed_s():.0f} s")
    return 0


def _all_of(trial: Trial, folder: Path) -> None:
    trial.compose.remove()  # leftovers of a killed run
    quick_start(trial)
    usage_of_machine()
    commands(trial)
    watching(trial)
    kills(trial)
    down_and_up(trial)
    upgrade(trial, folder)
    backup_and_restore(trial, folder)
    mistakes(trial)
    trial.compose.remove()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
