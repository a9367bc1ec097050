"""The shell of the pages sends a request again that Kafka was too slow for, and nothing else."""

import os
from pathlib import Path

import pytest

from tests.support import page_shell
from tests.support.page_shell import Block, PageShell, is_to_be_sent_again

REFUSED = '{"status": 503, "reason":"kafka_unavailable","detail":"Kafka did not answer. Send the request again later."}'
#: Answers 503 as often as a file has lines, then `stored`.
CURL = f"""#!/bin/sh
echo >> asked
if [ "$(wc -l < asked)" -le "$(cat refusals)" ]; then echo '{REFUSED}'; else echo stored; fi
"""


async def asked(folder: Path, text: str, refusals: int) -> int:
    """How often the requests of a block were sent, whose output must be `stored`."""
    (folder / "curl").write_text(CURL)
    (folder / "curl").chmod(0o755)
    (folder / "refusals").write_text(str(refusals))
    shell = PageShell(folder, {"PATH": f"{folder}:{os.environ['PATH']}"}, {}, "no-prefix")
    await shell.start()
    try:
        await shell.run(Block("a page", text, "", "", "stored"))
    finally:
        await shell.stop()
        count = len((folder / "asked").read_text().splitlines())
        assert count <= 3
    return count


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_shell, "_LATER_S", 0.0)


@pytest.mark.parametrize("refusals", [0, 1, 2])
async def test_a_request_is_sent_again_at_most_twice(tmp_path: Path, refusals: int) -> None:
    assert await asked(tmp_path, 'curl -s localhost \\\n  -d \'{"a": "b"}\'\n', refusals) == refusals + 1


async def test_a_product_that_always_refuses_fails(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="kafka_unavailable"):
        await asked(tmp_path, "curl -s localhost\n", 9)


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("curl -s a\ncurl -s b\n", REFUSED),
        ("curl -s a; echo", REFUSED),
        ("curl -s a && meterbridge held release", REFUSED),
        ("meterbridge topics check", REFUSED),
        ("curl -s a", REFUSED.replace("kafka_unavailable", "no_free_connection")),
        ("curl -s a", REFUSED.replace("later", "never")),
        ("curl -s a", "stored"),
    ],
)
def test_nothing_else_is_typed_again(text: str, output: str) -> None:
    assert not is_to_be_sent_again(text, output)
