"""The sandbox as a process: listens until it is told to stop."""

import asyncio
import signal
from typing import Any

from aiohttp import web

from connectors.lago.sandbox.app import create_sandbox

_SHUTDOWN_S = 2


async def run_sandbox(host: str, port: int, **options: Any) -> None:
    """Serve until SIGTERM or SIGINT; prints one line with the URL once it listens.

    Args:
        port: 0 for any free one; the line names the one taken.
        options: as of `create_sandbox`.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    runner = web.AppRunner(create_sandbox(**options), access_log=None, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        print(f"Lago sandbox on http://{host}:{runner.addresses[0][1]}", flush=True)  # noqa: T201 its one output
        await stopped.wait()
    finally:
        await runner.cleanup()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
