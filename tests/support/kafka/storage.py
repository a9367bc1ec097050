"""The formatted storage of a node: Kafka's own tool formats one a clone, and each broker begins with a copy that has ids of its own.

The tool is a JVM: half a second of CPU for two small files, for each of the brokers of a run.
"""

import base64
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

from tests.support.kafka.node import single_node

Command = Callable[..., list[str]]


def format_storage(cache: Path, command: Command, data: Path, node: str, cluster: str) -> None:
    """Format the new folder `data` for the node with this id of a cluster.

    Args:
        cache: the folder that is copied; made when it is not there.
        command: gives the command line of one of Kafka's classes.

    Raises:
        RuntimeError: the tool failed; with the end of its output.
    """
    if not cache.is_dir():
        _make(cache, command)
    shutil.copytree(cache, data)
    folder = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    ids = {"cluster.id": cluster, "directory.id": folder, "node.id": node, "version": "1"}
    (data / "meta.properties").write_text("".join(f"{name}={value}\n" for name, value in ids.items()))


def _make(cache: Path, command: Command) -> None:
    place = Path(tempfile.mkdtemp(dir=cache.parent))
    try:
        properties, created = place / "server.properties", place / "data"
        properties.write_text(
            "".join(f"{name}={value}\n" for name, value in single_node(1, str(created), None).items())
        )
        words = ("kafka.tools.StorageTool", "format", "-t", str(uuid.uuid4()), "-c", str(properties))
        done = subprocess.run(
            command(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"Kafka could not format its storage:\n{done.stdout[-2000:]}")
        if not cache.is_dir():  # another run may have been faster
            created.rename(cache)
    finally:
        shutil.rmtree(place)
