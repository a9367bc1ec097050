"""The sandbox as a process: it serves until the stop signal."""

from typing import Any

from aiohttp import web

from connectors.config.ports import port_refused
from connectors.lago_sandbox.app import create_sandbox
from streams.runtime.shutdown import StopSignal

_SHUTDOWN_S = 2


async def run_sandbox(word: StopSignal, host: str, port: int, **options: Any) -> int:
    """Serve until SIGTERM or SIGINT, and print one line with the URL when it listens; return the exit code.

    Args:
        port: 0 = any free one; the printed line has its number.
        options: of `create_sandbox`.

    Raises:
        ConfigurationError: the process cannot listen on the port.
    """
    runner = web.AppRunner(create_sandbox(**options), access_log=None, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise port_refused("--port", port, host, error) from error
        stop = word.begun()
        print(f"Lago sandbox on http://{host}:{runner.addresses[0][1]}", flush=True)  # noqa: T201 its one output
        await stop.wait()
    finally:
        await runner.cleanup()
    return 0
