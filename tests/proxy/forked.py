"""LiteLLM proxies that are forks of one process that has imported LiteLLM (forks.py)."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import httpx

from tests.support.eventually import PATIENCE

_FORKS = Path(__file__).with_name("forks.py")
#: The most that is waited for a proxy: to answer, and to end after SIGTERM.
_UP_LIMIT_S, _STOP_LIMIT_S = 1200.0, 30.0
_UP_POLL_S, _STOP_POLL_S = 0.5, 0.1


class ForkedProxy:
    """One proxy process, on a port of its own."""

    def __init__(self, folder: Path, port: int, pid: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._folder, self._pid = folder, pid

    async def up(self) -> None:
        """Wait until it answers. Raises: RuntimeError: it ended, or does not answer."""
        async with httpx.AsyncClient(trust_env=False, timeout=30 * PATIENCE) as client:
            for _ in range(int(_UP_LIMIT_S / _UP_POLL_S)):
                if not self._lives():
                    break
                try:
                    if (await client.get(self.url + "/health/liveliness")).is_success:
                        return
                except httpx.TransportError:
                    pass  # not listening yet: asked again below, a bounded number of times
                await asyncio.sleep(_UP_POLL_S)
        raise RuntimeError(f"LiteLLM is not up; see {self._folder / 'litellm.log'}")

    def kill(self) -> None:
        """SIGKILL; one that has ended stays as it is."""
        if self._lives():
            os.kill(self._pid, signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL if it stays."""
        if self._lives():
            os.kill(self._pid, signal.SIGTERM)
        for _ in range(int(_STOP_LIMIT_S / _STOP_POLL_S)):
            if not self._lives():
                return
            await asyncio.sleep(_STOP_POLL_S)
        self.kill()

    def _lives(self) -> bool:
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return False
        return True


class Launcher:
    """Imports LiteLLM once, then forks a proxy for each configuration. When it ends, the proxies continue.

    Args:
        folder: for the log of the launcher; it is made.
        python: of the environment with LiteLLM.
        environ: of the launcher and its forks, beside `PATH`.

    Raises:
        RuntimeError: LiteLLM cannot be imported.
    """

    def __init__(self, folder: Path, python: Path, environ: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        whole = {"PATH": os.environ.get("PATH", ""), "LITELLM_LOCAL_MODEL_COST_MAP": "True", **environ}
        with (folder / "launcher.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(python), str(_FORKS)],
                env=whole,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        while (line := self._answer()) != "ready":
            if not line:
                raise RuntimeError(f"LiteLLM cannot be imported; see {folder / 'launcher.log'}")

    def started(self, folder: Path, files: Mapping[str, str], port: int) -> ForkedProxy:
        """A proxy that is starting in `folder`, which is created and gets `files`; one of them is `config.yaml`."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"folder": str(folder), "port": port}) + "\n")
        self._process.stdin.flush()
        return ForkedProxy(folder, port, int(self._answer()))

    def close(self) -> None:
        """End the launcher."""
        self._process.kill()
        self._process.wait()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()
