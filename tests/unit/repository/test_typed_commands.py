"""The command `meterbridge` that a test's shell runs is a child of the shell like the real one."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.typed_commands import TypedCommands

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each process is started again")


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[TypedCommands]:
    created = TypedCommands(tmp_path)
    yield created
    created.stop()


def typed(commands: TypedCommands, text: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The result of bash for `text`."""
    environ = {"PATH": f"{commands.folder}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-c", text], env=environ, cwd=cwd, input="[", capture_output=True, text=True, check=False
    )


def test_arguments_and_exit_code_are_those_of_the_command(commands: TypedCommands) -> None:
    assert typed(commands, "meterbridge --version").stdout == "meterbridge 0.1.0\n"
    done = typed(commands, "meterbridge dlq nonsense")
    assert (done.returncode, done.stdout) == (2, "") and "No such command" in done.stderr


def test_variables_folder_and_stdin_are_those_of_the_shell(commands: TypedCommands, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "card.toml").write_text("[")
    assert "key part" in typed(commands, "meterbridge rates check card.toml", tmp_path / "here").stderr
    assert "KAFKA_PARTITIONS" in typed(commands, "KAFKA_PARTITIONS=none meterbridge topics check").stderr
    assert "key part" in typed(commands, "meterbridge rates check /dev/stdin").stderr


def test_a_signal_ends_the_command_and_wait_returns_its_code(commands: TypedCommands) -> None:
    port = free_port()
    begin = f"meterbridge lago-sandbox --port {port} > /dev/null & until curl -fso /dev/null localhost:{port}/health; do sleep 0.05; done;"
    assert typed(commands, begin + "kill $!; wait $!").returncode == 0
    assert typed(commands, begin + "kill -9 $!; wait $!").returncode == 128 + signal.SIGKILL
    assert typed(commands, f"until ! curl -so /dev/null localhost:{port}/health; do sleep 0.05; done").returncode == 0
