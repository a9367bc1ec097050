"""The shell blocks of a documentation page, run in one shell from top to bottom as a reader would type them.

A block is ```sh or ```bash. A ```text block behind it is what it prints: words must appear in this order, `...` stands for
anything. A comment right before a block says how it is run: `<!-- not run: why -->`, or `<!-- repeated -->` for one that
the page tells the reader to repeat until the output is there.

A Kafka that does not answer for ten seconds, as on a machine that pauses, makes an answer 503 `kafka_unavailable`, "Send the
request again later". A reader does so, and so does the shell: it types a block that is one request again, at most twice. A
product that always answers so still fails.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support import guard
from tests.support.eventually import PATIENCE
from tests.support.typed_commands import TypedCommands

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(
    r"(?:^ *<!-- (?P<how>not run|repeated)(?:: (?P<why>[^\n]*?))? -->\n)?"
    r"^ *```(?:sh|bash)\n(?P<text>.*?)^ *```\n(?:\n```text\n(?P<prints>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)
#: Typed in this order in the installation that README.md starts.
PAGES = (
    *("README.md", "docs/daily-work.md", "docs/close-month.md"),
    *("docs/credits.md", "docs/rates.md", "docs/provider-keys.md", "docs/analytics.md"),
    *("docs/access.md", "docs/ingress.md", "docs/mapping.md", "docs/operations.md", "docs/orgs.md", "docs/sdk.md"),
    *("docs/canary.md", "docs/stuck-usage.md", "docs/ledgers.md", "docs/upgrade.md"),
)
#: Typed in the same installation, after README.md: each different block once, because they only read.
RUNBOOKS = tuple(sorted((ROOT / "docs" / "runbooks").glob("*.md")))
#: It starts one of its own.
TUTORIAL = "docs/tutorial.md"
_END = "-- end of the block --"
#: How often a request is sent again after Kafka was unavailable, and the pause before, seconds.
_AGAIN, _LATER_S = 2, 5.0
_QUOTED = re.compile(r"'[^']*'|\"(?:\\.|[^\"\\])*\"", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """One shell block. `how`: `""`, `not run` or `repeated`; `why` it is not run; what it `prints`, `""` = not shown; the
    `chapter` that contains it, by the first words of its heading."""

    place: str
    text: str
    how: str
    why: str
    prints: str
    chapter: str = ""


def blocks(page: Path) -> Iterator[Block]:
    """Yield all blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        line = text[: found.start("text")].count("\n")
        how, why, prints = (found[name] or "" for name in ("how", "why", "prints"))
        chapter = text[: found.start()].rpartition("\n## ")[2].partition("\n")[0]
        yield Block(f"{page.relative_to(ROOT)}:{line}", textwrap.dedent(found["text"]), how, why, prints, chapter)


def prints_as_documented(prints: str, output: str) -> bool:
    """Return whether the output has the words of a page's text in this order; white space does not count."""
    parts = [r"\s*".join(map(re.escape, part.split())) for part in prints.split("...")]
    parts = [rf"(?<!\d){part}" if part[:1].isdigit() else part for part in parts]  # 3 is not 13
    return re.search(r".*?".join(parts), output, re.DOTALL) is not None


def is_to_be_sent_again(text: str, output: str) -> bool:
    """Return whether a block is one request, whose answer says that Kafka was unavailable and it may be sent again."""
    commands = _QUOTED.sub("Q", text).replace("\\\n", " ").strip()
    is_one_request = re.fullmatch(r"curl [^\n;&]*", commands) is not None
    said = re.sub(r"\s", "", output)
    return is_one_request and '"reason":"kafka_unavailable"' in said and "Sendtherequestagainlater" in said


class PageShell:
    """A bash in `folder` that stops at the first command that fails. `written`: what the pages write, and what to take
    instead, as regular expressions; names of topics lose `prefix` in what is printed. `forked`: its command `meterbridge` is
    that of tests/support/typed_commands.py, in place of the one on its PATH."""

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str],
        written: Mapping[str, str],
        prefix: str,
        *,
        forked: bool = False,
    ) -> None:
        self._folder, self._environ, self._written, self._prefix = folder, dict(environ), written, prefix
        self._forked = forked and sys.platform == "linux"
        self._commands: TypedCommands | None = None
        self._count = 0
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the shell."""
        if self._forked:
            self._commands = TypedCommands(Path(tempfile.mkdtemp(prefix="meterbridge-typed-")))
            self._environ["PATH"] = f"{self._commands.folder}:{self._environ['PATH']}"
        self._process = await asyncio.create_subprocess_exec(
            *("bash", "--noprofile", "--norc", "-e"),
            cwd=self._folder,
            env=self._environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=2**24,
        )
        guard.adopt(-self._process.pid, signal.SIGKILL, self._folder)  # its group, should this process be killed

    async def stop(self) -> None:
        """End the shell and every process that it started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
            guard.release(-self._process.pid)
        if self._commands is not None:
            await asyncio.to_thread(self._commands.stop)
            shutil.rmtree(self._commands.folder)

    async def run(self, block: Block, limit_s: float = 60) -> None:
        """Run a block, and compare what it prints with what the page says.

        Raises:
            AssertionError: a command failed, took longer than `limit_s`, or printed something else.
        """
        limit_s *= PATIENCE
        deadline = time.monotonic() + limit_s
        output = await self._typed(block, limit_s)
        for _ in range(_AGAIN):
            if is_to_be_sent_again(block.text, output):
                await asyncio.sleep(_LATER_S)
                output = await self._typed(block, limit_s)
        while (
            block.how == "repeated" and not prints_as_documented(block.prints, output) and time.monotonic() < deadline
        ):
            await asyncio.sleep(0.5)
            output = await self._typed(block, limit_s)
        assert prints_as_documented(block.prints, output), (
            f"{block.place} says\n{block.prints}\nand it printed\n{output}"
        )

    async def _line(self, stdout: asyncio.StreamReader) -> bytes:
        """Return the next line; `b""` = the shell has ended, although processes that it started may go on."""
        assert self._process is not None
        reading, ended = asyncio.ensure_future(stdout.readline()), asyncio.ensure_future(self._process.wait())
        try:
            await asyncio.wait({reading, ended}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({reading}, timeout=1)  # what the shell has printed before its end
            return reading.result() if reading.done() else b""
        finally:
            reading.cancel()
            ended.cancel()

    async def _typed(self, block: Block, limit_s: float) -> str:
        assert self._process is not None
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        text = block.text
        for pattern, value in self._written.items():
            text = re.sub(pattern, value, text)
        self._count += 1
        file = self._folder / f".block{self._count}"
        tolerant = "set +e\n" if block.how == "repeated" else "set -e\n"
        file.write_text(f"{tolerant}{text}\nset -e\n", encoding="utf-8")
        stdin.write(f". ./{file.name} </dev/null\necho; echo '{_END}'\n".encode())
        lines: list[str] = []
        try:
            async with asyncio.timeout(limit_s):
                while line := (await self._line(stdout)).decode():
                    if line.strip() == _END:
                        return "".join(lines).replace(self._prefix, "")
                    lines.append(line)
        except TimeoutError:
            lines.append("... and it did not end in time")
        raise AssertionError(f"{block.place} failed:\n{block.text}\nand it printed\n{''.join(lines)}")
