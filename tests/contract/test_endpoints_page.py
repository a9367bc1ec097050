"""docs/endpoints.md is generated from the OpenAPI document."""

from pathlib import Path

from connectors.ingest.routes import ROUTES
from tests.contract.compatibility.current import openapi
from tests.contract.endpoints_page import endpoints_page

CALLBACKS = {
    "/webhook/litellm/usage": "generic_api",
    "/api/v1/events": "lago",
    "/openmeter/api/v1/events": "openmeter",
}
PAGE = Path(__file__).parents[2] / "docs" / "endpoints.md"


def test_the_page_about_endpoints_is_current() -> None:
    """`python -m tests.contract.endpoints_page > docs/endpoints.md` writes it."""
    assert PAGE.read_text() == endpoints_page()


def test_each_endpoint_has_a_row_with_its_scope() -> None:
    page = PAGE.read_text()
    for path, operations in openapi()["paths"].items():
        for method, operation in operations.items():
            [row] = [line for line in page.splitlines() if line.startswith(f"| `{method.upper()} {path}` |")]
            for scheme in operation["security"]:
                assert all(f"`{scope}`" in row for scope in scheme.get("bearer", ())), row


def test_no_two_usage_webhooks_have_the_same_description() -> None:
    summaries = [openapi()["paths"][route.path]["post"]["summary"] for route in ROUTES]
    assert len(set(summaries)) == len(ROUTES)


def test_a_webhook_names_the_callback_that_posts_there() -> None:
    for path, callback in CALLBACKS.items():
        [row] = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| `POST {path}` |")]
        assert f"LiteLLM's `{callback}` callback" in row
