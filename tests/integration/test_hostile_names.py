"""Every command that shows names chosen by LiteLLM's clients, with names made to attack the reader's terminal."""

import asyncio
import time

from tests.integration.test_held import calls
from tests.support.calls import raw, slp
from tests.support.command import Ended, meterbridge
from tests.support.eventually import soon
from tests.support.stage import Stage

HOSTILE = "=cmd|' /C calc'!A0[/x][bold]:x:\x1b]0;pwn\x07\x1b[31m\u202eabc\u2066\x9b31m\nforged  1  9.99\r\ttab"
#: Looks for the ESC, BEL, CSI, bidirectional marks and line breaks in the middle.
STEERS = ("\x1b", "\x07", "\x9b", "\u202e", "\u2066", "\r", "\nforged")

#: JSON is written by one function; of tables each command has its own.
COMMANDS = (
    ("held", "list"),
    ("held", "list", "--customer", HOSTILE),
    ("held", "write-off", "--customer", HOSTILE, "--comment", HOSTILE, "--dry-run"),
    ("held", "write-off", "--customer", HOSTILE + "x", "--comment", HOSTILE),
    ("dlq", "list", "--kind", "calls"),
    ("dlq", "list", "--kind", "calls", "--customer", HOSTILE),
    ("dlq", "requeue", "--kind", "calls", "--comment", HOSTILE, "--dry-run"),
    ("reconcile",),
    ("explain", HOSTILE),
    ("explain", "--request", HOSTILE),
    ("explain", "--customer", HOSTILE, "--at", HOSTILE, "--usd", "1"),
    ("replay", "--from", HOSTILE, "--to", "1h"),
    ("backfill", "--source", "jsonl", "--file", HOSTILE.replace("/", "")),
    ("import", "mappings", HOSTILE.replace("/", "")),
    ("audit", "verify"),
    (HOSTILE,),
    ("held", "list", "--json"),
    ("dlq", "list", "--kind", "calls", "--json"),
    ("explain", HOSTILE, "--json"),
)


def harmless(result: Ended, *words: str) -> None:
    for text in (result.out, result.err):
        assert not [sign for sign in STEERS if sign in text], (words, text)
        assert "Traceback" not in text, (words, text)


async def test_no_command_lets_a_name_control_the_terminal(stage: Stage) -> None:
    """In an earlier version `held list` ended with a traceback for `[/x]`, and passed escape sequences through."""
    at = time.time_ns() // 1000
    refused = raw(0, slp(50, at_us=at, cost="-1", model=HOSTILE), customer=HOSTILE, received_us=at)
    stage.put([*calls(range(3), HOSTILE), refused])
    async with stage.running("meter", stage.parts()):
        await soon(lambda: stage.sensors.calls.get("billable") == 3, limit_s=20)
        await soon(lambda: bool(stage.values(stage.topics.rejected)), limit_s=20)
    at_once = asyncio.Semaphore(3)

    async def shown(words: tuple[str, ...]) -> str:
        async with at_once:
            result = await meterbridge(stage, *words)
        harmless(result, *words)
        return result.out

    assert "[/x][bold]:x:" in "".join(await asyncio.gather(*map(shown, COMMANDS)))
