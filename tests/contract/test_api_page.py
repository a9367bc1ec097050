"""The examples on the page about the API run unchanged, in their order."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.eventually import PATIENCE
from tests.support.org_api import OrgApi, org_api
from tests.support.page_shell import prints_as_documented

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
EXAMPLE = re.compile(
    r"^<!-- answers (\d{3}) -->\n```bash\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL
)


@pytest.fixture
async def api() -> AsyncIterator[OrgApi]:
    async with org_api() as running:
        await running.lago.plan("ai_usage_plan")
        yield running


async def test_every_example_gets_the_answer_on_the_page(api: OrgApi) -> None:
    text = PAGE.read_text()
    examples = EXAMPLE.findall(text)
    assert len(examples) == text.count("```bash") == 19
    environ = os.environ | {"API": str(api.http.base_url).rstrip("/"), "KEY": "a-key", "no_proxy": "*"}
    assert sum(1 for *_, answer in examples if answer) == text.count("```text") == 5
    for status, command, answer in examples:
        quiet = command.replace("curl ", "curl --silent --show-error --write-out '\\n%{http_code}' ", 1)
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", quiet, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        result, complaint = await asyncio.wait_for(process.communicate(), 30 * PATIENCE)
        assert process.returncode == 0, complaint
        body, _, answered = result.decode().rpartition("\n")
        assert answered == status, (command, body)
        assert prints_as_documented(answer, body), (command, body)


async def test_every_endpoint_is_on_the_page(api: OrgApi) -> None:
    text, parts = PAGE.read_text(), {"org_id": "org_acme", "customer_id": "customer-123", "plan_code": "starter"}
    for endpoint in api.endpoints:
        path = endpoint.path.format(**parts)
        assert path in text or f"| `{path.rpartition('/')[2]}`" in text, path
