"""Everything that a person sees goes through `connectors.telemetry.printable`; this test finds new code that does not."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import connectors
from tests.support.eventually import PATIENCE

ROOT = Path(connectors.__file__).parent
#: What writes to a terminal, by its last name or two.
PRINTS = {
    "print",
    "echo",
    "secho",
    "confirm",
    "prompt",
    "stdout.write",
    "stderr.write",
    "os.write",
    "print_exc",
    "print_json",
}
#: What makes a spreadsheet's text of others' text: a cell that begins with =, +, -, @, tab or CR is a formula there.
EXPORTS = {"csv.writer", "csv.DictWriter", "DictWriter", "to_csv"}
#: Modules with their reason.
ALLOWED = {
    "cli/base.py": "say, which escapes",
    "cli/sentences.py": "tell, which escapes",
    "cli/completion.py": "a script of Typer's",
    "cli/held.py": "a question of numbers alone",
    "cli/lago.py": "escapes by itself",
    "cli/topics.py": "a sentence of its own",
    "cli/main.py": "the version",
    "cli/terminal.py": "escapes by itself",
    "demo/run.py": "words and paths of its own",
    "demo/view.py": "customers that the demo made up",
    "doctor/run.py": "escapes by itself; json.dumps escapes all but ASCII",
    "doctor/catalogue.py": "a page of the documentation",
    "telemetry/metrics_page.py": "a page of the documentation",
    "telemetry/logs_page.py": "a page of the documentation",
    "processes/container_health.py": "escapes by itself",
    "config/configuration_page.py": "a page of the documentation",
    "lago_sandbox/server.py": "its own address",
    "litellm/plugin/meterbridge_litellm/__main__.py": "counts and paths of its own; json.dumps escapes all but ASCII",
    "litellm/plugin/meterbridge_litellm/aside.py": "records of a file, which no terminal shows",
    "litellm/plugin/meterbridge_litellm/ring.py": "records of the ring, which no terminal shows",
}
HOSTILE = "[/x]\x1b]0;pwn\x07\u202e"


def calls(names: set[str]) -> Iterator[tuple[str, str]]:
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                words = ast.unparse(node.func).split(".")
                for found in (
                    words[-1] if len(words) == 1 or words[-1] != "write" else "",
                    ".".join(words[-2:]),
                ):
                    if found in names:
                        yield str(path.relative_to(ROOT)), f"{found} in line {node.lineno}"


def test_no_code_prints_without_the_escape() -> None:
    found = dict(calls(PRINTS))
    assert {path: call for path, call in found.items() if path not in ALLOWED} == {}
    assert set(ALLOWED) <= set(found), "an exception that nothing needs"


def test_no_code_writes_csv() -> None:
    """Code that adds a CSV export must escape cells that begin like a formula (OWASP, CSV injection), and then change
    this test.
    """
    assert list(calls(EXPORTS)) == []


def test_the_traceback_of_a_bug_cannot_control_the_terminal() -> None:
    program = f"from connectors.cli.terminal import prepare; prepare(['held']); raise KeyError({HOSTILE!r} + chr(27))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=60 * PATIENCE)
    assert ended.returncode == 1
    assert b"Traceback" in ended.stderr
    program = f"from connectors.cli.terminal import prepare; prepare(['held']); raise ValueError({HOSTILE!r} + chr(27))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=60 * PATIENCE)
    assert b"pwn" in ended.stderr
    for steering in ("\x1b", "\u202e", "\x07"):
        assert steering not in ended.stderr.decode()


def test_the_message_of_an_interrupted_command_cannot_control_the_terminal() -> None:
    program = "from connectors.cli import terminal; terminal.when_interrupted(lambda: 'row of ' + chr(27) + ']0;pwn'); terminal._end()"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=60 * PATIENCE)
    assert (ended.returncode, b"pwn" in ended.stderr, b"\x1b" in ended.stderr) == (130, True, False)
