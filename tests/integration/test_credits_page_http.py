"""The shell examples of docs/credits.md run unchanged, in their order."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from tests.support.credit_api import CREDITS, CreditApi, credit_api
from tests.support.credits import account, give
from tests.support.eventually import PATIENCE

PAGE = Path(__file__).parents[2] / "docs" / "credits.md"
EXAMPLE = re.compile(r"^<!-- answers (\d{3}) -->\n```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
async def api(url: str) -> AsyncIterator[CreditApi]:
    async with credit_api(url) as running:
        yield running


async def test_every_example_gets_the_answer_on_the_page(api: CreditApi, url: str) -> None:
    text = PAGE.read_text()
    examples = EXAMPLE.findall(text)
    assert len(examples) == text.count("```bash") == 6
    await give(url, "user:ada", "10")
    environ = os.environ | {"API": f"http://127.0.0.1:{api.house.port}", "KEY": "root", "no_proxy": "*"}
    for status, command in examples:
        quiet = command.replace("curl ", "curl --silent --show-error --write-out '\\n%{http_code}' ", 1)
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", quiet, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        result, complaint = await asyncio.wait_for(process.communicate(), 30 * PATIENCE)
        assert process.returncode == 0, complaint
        body, _, answered = result.decode().rpartition("\n")
        assert answered == status, (command, body)
        if "authorize" in command:
            assert '"available":"9.75"' in body
    assert await account(url, "user:ada") == (Decimal("9.9875"), 0)


async def test_every_endpoint_is_on_the_page() -> None:
    text = PAGE.read_text()
    for path in ("balance", "transactions", "packages", "debit", "authorize", "purchase", "refused-payments"):
        assert f"{CREDITS}/{path}" in text, path
    assert "/webhooks/stripe" in text
