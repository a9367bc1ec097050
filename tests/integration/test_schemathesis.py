"""Generated requests: derived from the OpenAPI document, sent to a running server with all its services."""

import asyncio
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from pydantic import SecretStr

from connectors.operations import requeue_judge
from connectors.operations.usage_log import caught_up
from tests.support.database import migrated_database
from tests.support.eventually import within
from tests.support.kafka import Kafka
from tests.support.sandbox import Lago, lago_sandbox
from tests.support.server import BEARER, Server, running_server, settings_for

#: 501: what needs a setting that is not set. 503: it may pass. Anything else from 500 on is our bug.
#: Putting dead letters back reads whole topics, so of that a few requests are enough.
CONFIG = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "501", "503"]
[[operations]]
include-path = "/webhooks/retry"
phases.coverage.enabled = false
"""
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
ASKS_LAGO = "^/api/(v1/billing|customers|billing)"
#: It takes well below a minute on two idle cores.
LIMIT_S = 900


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    async with lago_sandbox() as running:
        await running.plan()
        yield running


@pytest.fixture
async def server(
    kafka: Kafka, topic_prefix: str, postgres_url: str, lago: Lago, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Server]:
    # Neither meter nor projector runs: a requeue would wait a minute for them, and be answered 503 then.
    monkeypatch.setattr(requeue_judge, "caught_up", partial(caught_up, limit_s=0.5))
    async with migrated_database(postgres_url) as url:
        settings = settings_for(
            kafka, topic_prefix, lago_api_url=lago.url, database_url=SecretStr(url), api_rate_limit=0
        )
        async with running_server(settings) as running:
            await running.map()
            yield running


@pytest.mark.long
async def test_every_request_that_the_document_allows_or_forbids_is_answered_as_documented(
    server: Server, tmp_path: Path
) -> None:
    """The requests are the same each time; each operation gets the limits of its types, missing and additional values.

    Two runs at once, one for operations that ask Lago; threads within a run meet a bug of CPython 3.11 in its `ast`.
    """
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    runs = [run_schemathesis(server, tmp_path, side) for side in ("--include-path-regex", "--exclude-path-regex")]
    for code, result in await asyncio.gather(*runs):
        assert code == 0, result
        assert "generated" in result


async def run_schemathesis(server: Server, folder: Path, side: str) -> tuple[int | None, str]:
    """The exit code and output, of the operations that ask Lago or of the others."""
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(folder / "schemathesis.toml"), "run",
        f"{server.http.base_url}/openapi.json", side, ASKS_LAGO,
        "--header", f"Authorization: {BEARER['Authorization']}",
        "--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing",
        "--max-examples", "5", "--generation-deterministic", "--no-shrink", "--max-failures", "20",
        "--request-timeout", "30", "--suppress-health-check", "all",
    ]  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=folder
    )
    try:
        async with within(LIMIT_S):
            result, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, result.decode()
