"""A real Postgres for tests: a configured one, or a temporary cluster from the machine's own binaries.

Postgres refuses to run as root, so a root test run hands the cluster to an unprivileged account.
The cluster trusts everybody on loopback and does not fsync: it is for tests alone.
"""

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from tests.support import guard
from tests.support.ports import free_port
from tests.support.server_folder import server_folder

_START_LIMIT_S = 60


class Postgres(Protocol):
    """One server; after `kill()` and `restart()` it has the same address and the same data."""

    url: str

    def describe(self) -> str:
        """Return which server this is, for people; never its password."""

    def kill(self) -> None:
        """Crash the server; returns when it is gone."""

    def restart(self) -> None:
        """Start the server again, stopping it first if it runs; returns when it answers."""

    def stop(self) -> None:
        """End the server and remove its data; twice does nothing."""


def start_postgres(environ: Mapping[str, str]) -> Postgres:
    """Start or find a server: `DATABASE_URL` if set, else a temporary cluster.

    Raises:
        RuntimeError: there are no Postgres binaries, or the cluster did not start.
    """
    if configured := environ.get("DATABASE_URL"):
        return ConfiguredPostgres(configured)
    return LocalPostgres()


class ConfiguredPostgres:
    """Another program's server: used, never killed."""

    def __init__(self, url: str) -> None:
        self.url = url

    def describe(self) -> str:
        return "Postgres of DATABASE_URL"

    def kill(self) -> None:
        raise RuntimeError("the server named by DATABASE_URL is not ours to kill; unset it for fault tests")

    def restart(self) -> None:
        self.kill()

    def stop(self) -> None:
        """Leave it unchanged."""


class LocalPostgres:
    """A cluster of our own on loopback; it ends when this process ends. `environ`: further variables of its process."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = os.environ | dict(environ or {})
        self._bin = binaries()
        self._account = _unprivileged_account()
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self.folder = server_folder("postgres")
        self.log = self.folder / "postgres.log"
        self.log.touch()
        for path in (self.folder, self.log):
            if self._account:
                shutil.chown(path, self._account["user"], self._account["group"])
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._run("initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
            self._start()
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """The process id of the server, which runs."""
        assert self._process is not None
        return self._process.pid

    def describe(self) -> str:
        return f"Postgres from {self._bin} at 127.0.0.1:{self.port}"

    def kill(self) -> None:
        self._end(signal.SIGQUIT)  # Postgres' own word for a crash: no checkpoint, recovery at the next start

    def restart(self) -> None:
        self._end(signal.SIGINT)
        self._start()

    def stop(self) -> None:
        self._end(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _start(self) -> None:
        settings = [f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self.folder}"]
        # Each new database is written to the log, too: a small one, because the folder may be in memory.
        small = ("max_wal_size=128MB", "min_wal_size=32MB")
        options = [part for setting in (*settings, "fsync=off", *small) for part in ("-c", setting)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, *options],
                **self._as_account(),
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        guard.adopt(self._process.pid, signal.SIGQUIT, self.folder)
        deadline = time.monotonic() + _START_LIMIT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Postgres did not start:\n{self._last_words()}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        ask = [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ask, stdin=subprocess.DEVNULL, check=False).returncode == 0

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        process.wait()
        guard.release(process.pid)

    def _run(self, tool: str, *arguments: str) -> None:
        command = [str(self._bin / tool), *arguments]
        with self.log.open("ab") as log:
            done = subprocess.run(
                command, **self._as_account(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
            )
        if done.returncode:
            raise RuntimeError(f"{tool} failed:\n{self._last_words()}")

    def _as_account(self) -> dict[str, Any]:
        return {**self._account, "extra_groups": [], "cwd": self.folder} if self._account else {"cwd": self.folder}

    def _last_words(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


def binaries() -> Path:
    """Return the newest folder with `initdb` and `postgres`.

    Raises:
        RuntimeError: there is none.
    """
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    on_path = [Path(found).resolve().parent for found in [shutil.which("initdb")] if found]
    for folder in (*reversed(installed), *on_path):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise RuntimeError("no Postgres to test with: set DATABASE_URL, or install the `postgresql` package")


def _unprivileged_account() -> dict[str, str | int]:
    """Return the owner of the cluster if we are root; empty if we are not."""
    if os.geteuid() != 0:
        return {}
    known = {entry.pw_name: entry.pw_gid for entry in pwd.getpwall()}
    user = next((name for name in ("postgres", "nobody") if name in known), None)
    if user is None:
        raise RuntimeError("Postgres does not run as root, and there is neither a user `postgres` nor `nobody`")
    return {"user": user, "group": known[user]}
