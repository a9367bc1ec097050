"""One run of the demo: sends calls, maps customers (some of them late), and in the end compares everything."""

import asyncio
import shutil
import signal
import tempfile
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from connectors.demo.broker import LIMITS
from connectors.demo.environment import DemoEnvironment, built_environment
from connectors.demo.reconciliation import Reconciliation, reconcile
from connectors.demo.sample_orgs import CUSTOMERS, MAPPED_LATE
from connectors.demo.traffic import Traffic
from connectors.demo.view import DemoStatus, View, show_reconciliation, view_for
from schemas.errors import MeterbridgeError

INTERRUPTED: Final = 130
#: Seconds after the last call: the time limit until all is billed, and how long a wrong bill must stay unchanged.
_DRAIN_S, _QUIET_S = 30.0, 3.0
_LOOK_EVERY_S: Final = 0.5


def run_demo(
    *, rate: int, seconds: int, environ: Mapping[str, str], lago_url: str | None = None, lago_key: str = ""
) -> int:
    """Run the demo. Returns the exit code: 0 = the reconciliation is exact, 1 = it is not, 130 = the run was
    interrupted.

    Args:
        rate: calls a second.
        seconds: for how long calls are sent.
        environ, lago_url, lago_key: see `built_environment`.

    Raises:
        MeterbridgeError: the demo cannot run. The logs are kept.
    """
    console = Console(highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="meterbridge-demo-"))
    try:
        end = asyncio.run(_interruptible(_run(console, folder, rate, seconds, environ, lago_url, lago_key)))
    except asyncio.CancelledError:
        shutil.rmtree(folder)
        console.print("Interrupted: everything is stopped.")
        return INTERRUPTED
    except MeterbridgeError:
        if any(folder.iterdir()):
            console.print(f"The logs are in {folder}", soft_wrap=True)
        else:
            folder.rmdir()
        raise
    if end.exact:
        shutil.rmtree(folder)
    else:
        console.print(f"The logs are in {folder}", soft_wrap=True)
    show_reconciliation(console, end)
    return 0 if end.exact else 1


async def _interruptible(run: Coroutine[Any, Any, Reconciliation]) -> Reconciliation:
    """Cancel the run at Ctrl-C, SIGTERM or a closed terminal. It then stops its processes."""
    task = asyncio.ensure_future(run)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await task


async def _run(
    console: Console,
    folder: Path,
    rate: int,
    seconds: int,
    environ: Mapping[str, str],
    lago_url: str | None,
    lago_key: str,
) -> Reconciliation:
    lago = "a Lago sandbox, " if lago_url is None else ""
    console.print(f"Starting a Kafka broker, {lago}ingress, api, meter, sink and retry ...", soft_wrap=True)
    async with built_environment(folder, environ, lago_url, lago_key) as environment:
        console.print(
            f"Kafka on {environment.kafka}: librdkafka's in-process broker, {LIMITS}. For trying out only.",
            soft_wrap=True,
        )
        console.print(f"Lago on {environment.lago_url}. Logs in {folder}", soft_wrap=True)
        traffic = Traffic(environment.ingress)
        demo_status = DemoStatus(environment.orgs, traffic.book, seconds)
        with view_for(console) as view:
            playing = asyncio.ensure_future(_play(environment, demo_status, traffic, rate))
            watching = asyncio.ensure_future(_watch(environment, demo_status, view))
            try:
                await asyncio.wait({playing, watching}, return_when=asyncio.FIRST_COMPLETED)
                if watching.done():
                    watching.result()
                end = playing.result()
                await _look(environment, demo_status, view)
                return end
            finally:
                playing.cancel()
                watching.cancel()
                await asyncio.wait({playing, watching})


async def _play(environment: DemoEnvironment, demo_status: DemoStatus, traffic: Traffic, rate: int) -> Reconciliation:
    demo_status.phase = "mapping customers"
    for customer in CUSTOMERS:
        if customer not in MAPPED_LATE:
            await environment.map(customer)
    demo_status.phase = "calls arrive"
    demo_status.began = time.monotonic()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(traffic.send(rate, demo_status.seconds))
            for customer, part in MAPPED_LATE.items():
                group.create_task(_map_late(environment, demo_status, customer, part * demo_status.seconds))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    demo_status.phase = "the last windows are sealed and delivered"
    return await _settled(environment, traffic)


async def _map_late(environment: DemoEnvironment, demo_status: DemoStatus, customer: str, after_s: float) -> None:
    await asyncio.sleep(after_s)
    await environment.map(customer)
    demo_status.mapped.add(customer)


async def _settled(environment: DemoEnvironment, traffic: Traffic) -> Reconciliation:
    """Return the reconciliation, when it is exact, when nothing changes any more, or when the time is up."""
    deadline = time.monotonic() + _DRAIN_S
    last, since = None, time.monotonic()
    while True:
        reading = await environment.scraper.read()
        bill = await environment.lago.bill(environment.orgs)
        end = reconcile(environment.orgs, traffic.book, bill, reading)
        now = time.monotonic()
        if bill != last or not reading.at_rest:
            last, since = bill, now
        if (end.exact and reading.at_rest) or now - since > _QUIET_S or now > deadline:
            return end
        await asyncio.sleep(_LOOK_EVERY_S)


async def _watch(environment: DemoEnvironment, demo_status: DemoStatus, view: View) -> None:
    """Show the state until the task is cancelled. Raises: MeterbridgeError: a process has ended, or Lago does not answer."""
    while True:
        environment.processes.check()
        await _look(environment, demo_status, view)
        await asyncio.sleep(_LOOK_EVERY_S)


async def _look(environment: DemoEnvironment, demo_status: DemoStatus, view: View) -> None:
    demo_status.reading = await environment.scraper.read()
    demo_status.bill = await environment.lago.bill(environment.orgs)
    demo_status.look(time.monotonic())
    view.show(demo_status)
