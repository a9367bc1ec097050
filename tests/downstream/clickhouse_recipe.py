"""Runs the recipe for ClickHouse with a Python that has chdb: `clickhouse_recipe.py JOB.json` prints JSON.

The job has `make` and `ask`, the SQL of the page with a real broker's address and topic, and the number of `records`.
ClickHouse as a library reads a table of the engine Kafka when it is asked, and does not push its rows into materialized views
by itself. So they are asked for, and passed to a table that the views read in its place.
"""

import json
import sys
import time
from pathlib import Path

from chdb import session

ADDED = "_error String, _topic String, _partition Int64, _offset Int64"
EXACT = "SETTINGS output_format_json_quote_decimals = 1"
PATIENCE_S = 120


def main(job: dict) -> dict:
    """The rows of the answer, the number of stored rows before they are merged, and the unreadable records."""
    clickhouse = session.Session()
    queue, *others = job["make"]
    columns = queue.partition("(")[2].partition(") ENGINE")[0]
    clickhouse.query(f"CREATE TABLE passed ({columns}, {ADDED}) ENGINE = Null")
    for statement in others:
        clickhouse.query(statement.replace("FROM enriched_queue", "FROM passed"))
    again = queue.replace("enriched_queue", "enriched_again").replace("'clickhouse'", "'clickhouse-again'")
    for table, statement in (("enriched_queue", queue), ("enriched_again", again)):
        create_table(clickhouse, statement)
        passed_on(clickhouse, table, job["records"])
    stored = int(str(clickhouse.query("SELECT count() FROM calls", "TSV")))
    return {
        "rows": rows(clickhouse, job["ask"]),
        "stored": stored,
        "unread": rows(clickhouse, "SELECT topic, partition, offset, error FROM calls_unread FINAL"),
    }


def create_table(clickhouse: session.Session, statement: str) -> None:
    """Create the table; that its consumer cannot run by itself is an error of the library."""
    try:
        clickhouse.query(statement)
    except Exception as error:
        if "Shutdown was called" not in str(error):
            raise


def passed_on(clickhouse: session.Session, table: str, records: int) -> None:
    """Read the topic through the Kafka engine, as a consumer group that has read nothing yet."""
    copy = f"INSERT INTO read SELECT *, _error, _topic, _partition, _offset FROM {table}"
    seen, deadline = 0, time.monotonic() + PATIENCE_S
    while seen < records:
        assert time.monotonic() < deadline, f"{seen} of {records} records"
        clickhouse.query("CREATE OR REPLACE TABLE read AS passed ENGINE = Memory")
        clickhouse.query(copy + " SETTINGS stream_like_engine_allow_direct_select = 1")
        clickhouse.query("INSERT INTO passed SELECT * FROM read")
        seen += int(str(clickhouse.query("SELECT count() FROM read", "TSV")))


def rows(clickhouse: session.Session, query: str) -> list:
    """The rows of an answer."""
    return [json.loads(row) for row in str(clickhouse.query(f"{query} {EXACT}", "JSONCompactEachRow")).splitlines()]


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
