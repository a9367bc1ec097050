"""The table of `meterbridge keys list`."""

from io import StringIO

from rich.console import Console

from connectors.cli.keys import _table


def test_a_key_without_limits_is_not_shown_as_one_without_orgs() -> None:
    row = {
        "id": "0123456789ab",
        "name": "ci",
        "state": "active",
        "scopes": ["read"],
        "orgs": None,
        "customer_prefixes": ["acme-"],
        "created_by": "ada",
        "expires_at": None,
        "last_used_at": None,
    }
    text = StringIO()
    Console(file=text, width=200).print(_table([row]))
    cells = text.getvalue().splitlines()[-1].split()
    assert cells[3:6] == ["read", "all", "acme-"]
