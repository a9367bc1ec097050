"""docs/tutorial-compose.md, typed unchanged: a real LiteLLM proxy's call is billed and verified; and docs/alarms.md."""

import asyncio
import os
import re
from pathlib import Path

from tests.deploy.compose import Failed, docker
from tests.deploy.sources import copied
from tests.deploy.trial import step
from tests.support.page_shell import ROOT, Block, PageShell, blocks

PAGE = ROOT / "docs" / "tutorial-compose.md"
#: Typed in the same installation, before its last step: how the commands of the runbooks are asked there.
ALARMS = ROOT / "docs" / "alarms.md"
FIRST, LAST = "1. Clone", "9. Stop"
PROJECT = "meterbridge-deploy-test-page"
#: What reaches the page's shell: of a reader's variables those by which the engine and pip's packages are found.
_KEPT = re.compile(r"PATH|HOME|DOCKER_HOST|DOCKER_BUILDKIT|PIP_\w+|HTTPS_PROXY|https_proxy|SSL_CERT_FILE")
#: For a block on a quiet machine: the longest ones build the image, and wait for the installation of LiteLLM.
_LIMIT_S = 300.0


class TypedPage:
    """The page, typed in a copy of the sources, like in a reader's clone.

    Its first step installs LiteLLM in the background: so it is typed at the beginning, and the rest in the end.
    """

    def __init__(self, folder: Path) -> None:
        clone = folder / "page" / "meterbridge"
        copied(clone)
        kept = {name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)}
        own = {"COMPOSE_PROJECT_NAME": PROJECT, "COLUMNS": "250", "no_proxy": "localhost"}
        self._shell = PageShell(clone, kept | own, {}, "")
        self._runner = asyncio.Runner()
        self._blocks = list(blocks(PAGE))
        self._runner.run(self._shell.start())

    def first_step(self) -> None:
        """Raises: Failed: as `rest`."""
        self._type([block for block in self._blocks if block.chapter.startswith(FIRST)])

    def rest(self) -> None:
        """Deploy, bill a LiteLLM call, run the checks of the runbooks, and stop.

        Raises:
            Failed: a command failed, or printed something else than the page says.
        """
        remove()  # leftovers of a killed run
        later = [block for block in self._blocks if not block.chapter.startswith(FIRST)]
        (end,) = (index for index, block in enumerate(later) if block.chapter == LAST)
        self._type([*later[:end], *blocks(ALARMS), *later[end:]])

    def close(self) -> None:
        """End the shell and the processes it started, and remove what it created in the engine."""
        with self._runner:
            self._runner.run(self._shell.stop())
        remove()

    def _type(self, some: list[Block]) -> None:
        try:
            for block in some:
                with step(f"{block.place}: {block.text.split()[0]}"):
                    self._runner.run(self._shell.run(block, _LIMIT_S))
        except AssertionError as error:
            raise Failed(str(error)) from error


def remove() -> None:
    """Remove everything that the page has created in the engine: its last step does the same."""
    own = ("--filter", f"label=com.docker.compose.project={PROJECT}", "--quiet")
    for kind, all_of, force in (
        ("container", ["--all"], ["--force", "--volumes"]),
        ("network", [], []),
        ("volume", [], ["--force"]),
    ):
        if found := docker(kind, "ls", *all_of, *own).split():
            docker(kind, "rm", *force, *found)
