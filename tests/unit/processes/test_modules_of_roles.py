"""A process loads no large library that it does not use, because the library would stay in memory."""

import json
import subprocess
import sys

import pytest

from tests.support.eventually import PATIENCE

#: Started as a container starts it, up to the point where it would open its ports or fork its children.
PROGRAM = """
import json, sys
from connectors.__main__ import main
from tests.support.eventually import PATIENCE
{stop_at}
try:
    main()
except SystemExit:
    pass
assert sys.modules["aiohttp.connector"]._SSL_CONTEXT_VERIFIED is None, "the authorities are read for a client that is not used"
print(json.dumps(sorted(sys.modules)))
"""
SERVES = """
def stop(*_):
    {more}
    return 0
import connectors.cli.plain
loaded = connectors.cli.plain.import_module
def load(name):
    module = loaded(name)
    import connectors.cli.serve
    connectors.cli.serve.run_serve = stop
    return module
connectors.cli.plain.import_module = load
"""
WORKS = """
def stop(settings, roles, *_):
    from connectors.processes.shared_memory import prepare
    prepare(roles)
    return 0
import connectors.cli.plain
loaded = connectors.cli.plain.import_module
def load(name):
    module = loaded(name)
    import connectors.cli.worker
    connectors.cli.worker.run_worker = stop
    return module
connectors.cli.plain.import_module = load
"""
#: What no process that runs until SIGTERM uses: the command line, optional parts of libraries, what is off by default.
NEVER = {"typer", "click", "rich", "pygments", "httpx._main", "stripe", "opentelemetry", "jwt", "cryptography"}
CREDENTIALS = {
    "LITELLM_MASTER_KEY": "sk-" + "i" * 40,
    "WEBHOOK_TOKEN": "w" * 40,
    "DATABASE_URL": "postgresql://nowhere/x",
}


def modules_of(*words: str, stop_at: str) -> set[str]:
    command = [sys.executable, "-c", PROGRAM.format(stop_at=stop_at), *words]
    ran = subprocess.run(
        command, capture_output=True, text=True, env={"PATH": "", **CREDENTIALS}, check=False, timeout=60 * PATIENCE
    )
    assert ran.returncode == 0, ran.stderr
    return set(json.loads(ran.stdout.splitlines()[-1]))


def test_an_ingress_loads_neither_the_meters_nor_the_apis_libraries() -> None:
    loaded = modules_of("serve", "--only", "webhooks", stop_at=SERVES.format(more=""))
    assert not loaded & (NEVER | {"numpy", "faust", "asyncpg", "connectors.processes.management_api"})


def test_an_api_loads_neither_the_meters_libraries_nor_those_of_disabled_features() -> None:
    """numpy is loaded with the first completed event, cryptography with `PROVIDER_KEYS_SECRET` or `OIDC_ISSUER`."""
    serving = SERVES.format(more="import connectors.processes.management_api")
    assert not modules_of("serve", "--only", "api", stop_at=serving) & (NEVER | {"numpy", "faust"})


def test_a_worker_loads_neither_the_command_line_nor_postgres() -> None:
    loaded = modules_of("worker", "--only", "meter,sink,retry", stop_at=WORKS)
    assert not loaded & (NEVER | {"asyncpg", "connectors.billing.org_billing"})


def test_a_projector_loads_nothing_of_the_meter() -> None:
    loaded = modules_of("worker", "--only", "project", stop_at=WORKS)
    assert not loaded & (NEVER | {"numpy", "streams.agents.meter", "streams.agents.sink", "streams.state.ledger"})


@pytest.mark.parametrize("words", [("worker", "--only", "meter"), ("serve", "--only", "webhooks")])
def test_the_command_line_reports_a_wrong_setting(words: tuple[str, ...]) -> None:
    environ = {"PATH": "", "WINDOW_SECONDS": "much"}
    ran = subprocess.run(
        [sys.executable, "-m", "connectors", *words], capture_output=True, text=True, env=environ, check=False
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("meterbridge: WINDOW_SECONDS")
