"""Modules that a worker's children need are loaded and used once before the fork; otherwise each child has its own copy
in memory.
"""

import json
import subprocess
import sys

import pytest

#: After `prepare`, makes what a child makes at its start, and prints the modules that this has loaded.
PROGRAM = """
import asyncio, json, sys
from types import SimpleNamespace
from connectors.processes.shared_memory import prepare
prepare(["meter", "sink", "retry"])
before = set(sys.modules)

async def main():
    from connectors.lago.client import lago_http
    from streams.runtime.faust_transport import App
    app = App("test", broker="aiokafka://127.0.0.1:1", store="memory://", web_enabled=False)
    app.topics, app.consumer, app.tables, app.assignor
    async with lago_http(1.0, 1) as http:
        try:
            await http.get("http://localhost:1/")
        except Exception:
            pass

asyncio.run(main())
print(json.dumps(sorted(set(sys.modules) - before)))
"""
#: Looks at each loaded module; a role is then made, and must not do so.
ROUTED = """
import inspect
from streams.runtime.faust_transport import App

def looked(*_):
    raise AssertionError("every loaded module is looked at")

inspect.getmodule = looked
app = App("test", broker="aiokafka://127.0.0.1:1", store="memory://", web_enabled=False)

async def work(_):
    pass

app.route("topic", work)
app.every_tick(work)
print(sorted(app.agents), len(app._app_tasks))
"""


def output_of(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_a_child_loads_no_further_module() -> None:
    assert json.loads(output_of(PROGRAM)) == []


def test_creating_a_role_does_not_search_all_modules() -> None:
    """Faust's decorators search all modules for the caller's module: 10 MiB were copied in each child."""
    assert output_of(ROUTED) == "['test.topic.route'] 1"


@pytest.mark.skipif(sys.platform != "linux", reason="threads are read in /proc")
def test_the_use_before_the_fork_starts_no_thread() -> None:
    """A fork copies only the thread that forks."""
    program = """
from connectors.cli.terminal import prepare as begin
begin(["worker"])
from connectors.processes.shared_memory import prepare
prepare(["meter", "sink", "retry", "project"])
import os
print(len(os.listdir("/proc/self/task")))
"""
    assert output_of(program) == "1"


def test_all_lago_clients_share_the_same_certificate_authorities() -> None:
    """Earlier each client read them for itself, 0.8 MiB. Here the process of the tests already shares them."""
    program = """
from connectors.lago.client import lago_http
one, other = (http._transport._pool._ssl_context for http in (lago_http(1.0, 1), lago_http(1.0, 1)))
print(one is other)
"""
    assert output_of(program) == "True"
