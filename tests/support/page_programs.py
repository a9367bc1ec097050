"""Python programs on a documentation page, run unchanged."""

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Any

from tests.support.eventually import PATIENCE

DOCS = Path(__file__).parents[2] / "docs"
_PROGRAM = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def programs(page: str) -> list[str]:
    """Return all programs of the page, in order."""
    return _PROGRAM.findall((DOCS / page).read_text(encoding="utf-8"))


def names_of(program: str) -> dict[str, Any]:
    """Return what a program defines when it is imported."""
    names: dict[str, Any] = {"__name__": "program"}
    exec(compile(program, "a program of the page", "exec"), names)
    return names


async def printed(program: str, environ: dict[str, str], python: str = sys.executable, cwd: Path | None = None) -> str:
    """Return the output of a program that runs alone with these variables and those of this process."""
    process = await asyncio.create_subprocess_exec(
        python,
        "-c",
        program,
        env=os.environ | {"no_proxy": "*"} | environ,
        cwd=cwd,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 60 * PATIENCE)
    assert process.returncode == 0, errors.decode()
    return output.decode().strip()
