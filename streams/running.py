"""Running roles in this process: start, wait for the word to stop, stop within seconds."""

import asyncio

import structlog

from streams.roles import Role

log = structlog.get_logger(__name__)

_STOP_S = 5.0


async def run_role(role: Role, stop: asyncio.Event) -> None:
    """Run a role until `stop` is set or its Faust app ends by itself.

    Lanes are closed first, so that what is durable is committed; then the group is left.

    Raises:
        RuntimeError: the app crashed; its own error is the cause.
    """
    app = role.app
    app.finalize()
    stopping = asyncio.ensure_future(stop.wait())
    # Starting waits for the group, which may be waiting for a dead member: the word to stop must not.
    starting = asyncio.ensure_future(app.maybe_start())
    await asyncio.wait({stopping, starting}, return_when=asyncio.FIRST_COMPLETED)
    crashed = asyncio.ensure_future(app.wait_until_stopped())
    if starting.done():
        starting.result()
        await asyncio.wait({stopping, crashed}, return_when=asyncio.FIRST_COMPLETED)
    crash = app.crash_reason
    stopping.cancel()
    await role.close()
    try:
        await asyncio.wait_for(app.stop(), _STOP_S)
    except TimeoutError:
        log.warning("app_left_running", app=app.conf.id)
    crashed.cancel()
    starting.cancel()
    if crash is not None:
        raise RuntimeError("the Faust app crashed") from crash
