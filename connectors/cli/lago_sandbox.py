"""`meterbridge lago-sandbox`: a stand-in for Lago."""

from pathlib import Path
from typing import Literal

from connectors.cli.running import one_sentence
from connectors.cli.sentences import fail
from connectors.lago_sandbox import run_sandbox
from streams.runtime.shutdown import run_until_told


def lago_sandbox(
    port: int,
    host: str,
    api_key: str | None,
    store: Literal["postgres", "clickhouse"],
    *,
    dedup: bool,
    delay: float,
    rate_limit: int | None,
    journal: Path | None,
    webhook_secret: str | None,
) -> None:
    """Run `meterbridge lago-sandbox`."""
    if dedup and store != "clickhouse":
        fail("--dedup is a setting of the clickhouse store: postgres always deduplicates.", 2)
    options = {"api_key": api_key, "store": store, "dedup": dedup, "delay_s": delay, "journal": journal}
    if webhook_secret is not None:
        options["webhook_secret"] = webhook_secret
    with one_sentence():
        run_until_told(lambda word: run_sandbox(word, host, port, **options, rate_limit=rate_limit))
