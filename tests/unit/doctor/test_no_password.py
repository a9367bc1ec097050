"""An address may contain a user and a password; no report, log line or error shows them."""

from decimal import Decimal

import httpx
import pytest

from connectors.config.settings import load_settings
from connectors.doctor.examination import examine
from connectors.doctor.run import report_text
from connectors.litellm.proxy import ask_proxy
from connectors.operations.canary_post import CanaryPost, Credential
from schemas.errors import MeterbridgeError
from streams.core.delivery.canary import CanaryCall
from tests.support.ports import free_port


def secret_url() -> str:
    return f"http://user:hunter2@127.0.0.1:{free_port()}"


async def test_the_doctors_report_shows_no_password() -> None:
    own = load_settings(
        {
            "LAGO_API_URL": secret_url(),
            "LAGO_API_KEY": "key",
            "LITELLM_MASTER_KEY": "sk",
            "LAGO_ORGANIZATIONS": f'[{{"id": "eu", "url": "{secret_url()}", "key_file": "/nowhere"}}]',
        }
    )
    async with httpx.AsyncClient(trust_env=False) as http:
        report = await examine(own, http, None, secret_url(), with_lago=True)
    assert "127.0.0.1" in report_text(report)
    assert "hunter2" not in report_text(report)


@pytest.mark.parametrize("status", [0, 401, 500, 200])
async def test_no_error_about_a_proxy_or_an_ingress_shows_a_password(status: int) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if not status:
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(status, text="no JSON")

    url = secret_url()
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        with pytest.raises(MeterbridgeError, match="127") as raised:
            await ask_proxy(http, url, "sk")
        why = await CanaryPost(http, url, Credential("token"), "canary", "user", Decimal(1)).post(
            CanaryCall("id", "model", Decimal(1), 1_000_000, 2_000_000, 3_000_000), 0
        )
    assert "127.0.0.1" in why
    assert "hunter2" not in f"{raised.value} {why}"
