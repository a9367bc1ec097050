"""A process loads no large library that it does not use."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("library", ["numpy", "faust", "asyncpg", "stripe", "cryptography", "opentelemetry"])
def test_an_ingress_alone_does_not_load(library: str) -> None:
    """Each takes between 2 and 9 MiB of memory."""
    program = f"import sys, connectors.cli.serve, connectors.processes.server; print({library!r} in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
