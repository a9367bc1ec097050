#!/usr/bin/env python
"""The commands of Lago's images under their names: what would be missing for Lago is an error here too."""

import asyncio
import base64
import os
import socket
import sys
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

NEEDED = (
    *("SECRET_KEY_BASE", "LAGO_ENCRYPTION_PRIMARY_KEY", "LAGO_ENCRYPTION_DETERMINISTIC_KEY"),
    *("LAGO_ENCRYPTION_KEY_DERIVATION_SALT", "LAGO_RSA_PRIVATE_KEY", "LAGO_API_URL", "LAGO_FRONT_URL"),
)
OF_THE_ORGANISATION = ("LAGO_ORG_NAME", "LAGO_ORG_USER_EMAIL", "LAGO_ORG_USER_PASSWORD", "LAGO_ORG_API_KEY")


def main(name: str, words: list[str]) -> None:
    if name in ("curl", "wget"):
        urllib.request.urlopen(words[-1], timeout=4).read()
        return None
    if name == "redis-server":
        asyncio.run(answer_pings())
    if name == "redis-cli":
        return ping("localhost", 6379)
    needed = NEEDED + (OF_THE_ORGANISATION if os.environ.get("LAGO_CREATE_ORG") == "true" else ())
    if missing := [one for one in needed if not os.environ.get(one)]:
        sys.exit(f"not set: {missing}")
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    load_pem_private_key(base64.b64decode(os.environ["LAGO_RSA_PRIVATE_KEY"], validate=True), None)
    asyncio.run(
        database("CREATE TABLE lago_was_here (at int)" if name == "migrate.sh" else "SELECT FROM lago_was_here")
    )
    queue = urlsplit(os.environ["REDIS_URL"])
    ping(queue.hostname or "", queue.port or 6379)
    if name == "start.api.sh":
        journal = str(Path("/app/storage/journal"))
        sandbox = ["lago-sandbox", "--host", "0.0.0.0", "--port", "3000", "--journal", journal]
        os.execvp("meterbridge", ["meterbridge", *sandbox])
    if name.startswith("start."):
        os.execvp("tail", ["tail", "-f", "/dev/null"])
    return None


def ping(host: str, port: int) -> None:
    with socket.create_connection((host, port), timeout=4) as connection:
        connection.sendall(b"PING\r\n")
        if connection.recv(5) != b"+PONG":
            sys.exit("the queue does not answer")


async def answer_pings() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            writer.write(b"+PONG\r\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "0.0.0.0", 6379)
    await server.serve_forever()


async def database(statement: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    await connection.execute(statement.replace("TABLE ", "TABLE IF NOT EXISTS "))
    await connection.close()


if __name__ == "__main__":
    main(Path(sys.argv[0]).name, sys.argv[1:])
