"""COPY of rows that are ready-made in files, one statement a table, in one transaction."""

import asyncio
import sys
from pathlib import Path

import asyncpg

from bench.server_cpu import with_postgres
from bench.stopwatch import Stopwatch

#: The partitions of the calls' month and of those beside it.
_MONTHS = "SELECT ensure_usage_month((now() + make_interval(months => n))::date) FROM generate_series(-1, 1) AS n"


async def main(url: str, postmaster: int, records: int, folder: Path, *tables: str) -> None:
    """Copy the files of `folder` into the tables of the same names; the count is `records`."""
    connection = await asyncpg.connect(url, server_settings={"synchronous_commit": "off"})
    columns = {table: (folder / f"{table}.columns").read_text().split(",") for table in tables}
    await connection.execute(_MONTHS)
    watch = Stopwatch(with_postgres(postmaster))
    watch.start()
    async with connection.transaction():
        for table in tables:
            await connection.copy_to_table(table, source=folder / table, columns=columns[table], format="binary")
    watch.stop(records)
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), *sys.argv[5:]))
