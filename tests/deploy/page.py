"""docs/tutorial-compose.md, typed as it stands: a real LiteLLM proxy's call is billed and proved; and docs/alarms.md."""

import asyncio
import os
from pathlib import Path

from tests.deploy.compose import Failed, docker
from tests.deploy.sources import copied
from tests.deploy.trial import step
from tests.support.page_shell import ROOT, PageShell, blocks

PAGE = ROOT / "docs" / "tutorial-compose.md"
#: Typed in the same installation, before its last step: how the commands of the runbooks are asked there.
ALARMS = ROOT / "docs" / "alarms.md"
LAST = "8. Stop"
PROJECT = "meterbridge-deploy-test-page"
#: What reaches the page's shell: of a reader's variables those by which the engine and pip's packages are found.
_KEPT = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_BUILDKIT")
#: For a block on a quiet machine: the longest one builds the image, and installs LiteLLM.
_LIMIT_S = 300.0


def typed_page(folder: Path) -> None:
    """Type it in a copy of the sources, which is what a reader has cloned.

    Raises:
        Failed: a command failed, or printed something else than the page says.
    """
    with step(f"{PAGE.name}, typed"):
        remove()  # what a run left that was killed
        clone = folder / "page" / "meterbridge"
        copied(clone)
        try:
            asyncio.run(_typed(clone))
        except AssertionError as error:
            raise Failed(str(error)) from error
        finally:
            remove()


async def _typed(clone: Path) -> None:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    shell = PageShell(
        clone, kept | {"COMPOSE_PROJECT_NAME": PROJECT, "COLUMNS": "250", "no_proxy": "localhost"}, {}, ""
    )
    await shell.start()
    try:
        own = list(blocks(PAGE))
        (end,) = (index for index, block in enumerate(own) if block.chapter == LAST)
        for block in (*own[:end], *blocks(ALARMS), *own[end:]):
            with step(f"    {block.place}: {block.text.split(maxsplit=2)[0]}"):
                await shell.run(block, _LIMIT_S)
    finally:
        await shell.stop()


def remove() -> None:
    """Everything that the page has made in the engine: its last step does the same."""
    own = ("--filter", f"label=com.docker.compose.project={PROJECT}", "--quiet")
    for kind, force in (("container", "--force --volumes"), ("network", ""), ("volume", "--force")):
        everything = ("--all",) if kind == "container" else ()
        if found := docker(kind, "ls", *everything, *own).split():
            docker(kind, "rm", *force.split(), *found)
