"""Runs a role in this process: start, wait for the stop signal, stop within seconds."""

import asyncio

import structlog

from streams.runtime.faust_transport import App
from streams.runtime.garbage_collection import collect_seldom
from streams.runtime.role import AnyRole

log = structlog.get_logger(__name__)

#: The longest wait for Faust to stop, after the partition tasks were closed.
_STOP_S = 4.0


class RoleCrashed(RuntimeError):
    """The Faust app of a role did not start, or crashed; `cause` is its own error."""

    def __init__(self, what: str, cause: BaseException) -> None:
        super().__init__(what)
        self.cause = cause


async def run_role(role: AnyRole, stop: asyncio.Event) -> None:
    """Run a role until `stop` is set or its Faust app ends by itself.

    Partition tasks are closed first, so that finished work is committed; then the group is left.

    Raises:
        RoleCrashed: the app did not start, or crashed.
    """
    collect_seldom()
    app = role.app
    app.finalize()
    stopping = asyncio.ensure_future(stop.wait())
    # Starting waits for the group, which may wait for a dead member; the stop signal must not wait for it.
    starting = asyncio.ensure_future(app.maybe_start())
    await asyncio.wait({stopping, starting}, return_when=asyncio.FIRST_COMPLETED)
    crashed = asyncio.ensure_future(app.wait_until_stopped())
    # A CancelledError that a library lets out is an error, too.
    failed = None if not starting.done() else asyncio.CancelledError() if starting.cancelled() else starting.exception()
    if starting.done() and failed is None:
        await asyncio.wait({stopping, crashed}, return_when=asyncio.FIRST_COMPLETED)
    crash = failed or app.crash_reason
    stopping.cancel()
    try:
        await role.close()
    finally:
        # An app that runs on would stay a member of its group, and its partitions would have no owner.
        await _stop(app, raises=crash is None)
    crashed.cancel()
    if not starting.cancel() and crash is None and not starting.cancelled():
        crash = failed = starting.exception()  # it failed while the role stopped
    if crash is not None:
        raise RoleCrashed("the Faust app did not start" if failed else "the Faust app crashed", crash) from crash


async def _stop(app: App, *, raises: bool) -> None:
    """Stop the app; its own error in that is raised if `raises`."""
    leaving = asyncio.ensure_future(app.stop())
    # Not `wait_for`: it waits for the task that it cancels, and Faust may wait for a thread.
    await asyncio.wait({leaving}, timeout=_STOP_S)
    if not leaving.done():
        log.warning("app_left_running", app=app.conf.id)
        leaving.cancel()
    elif raises:
        leaving.result()
