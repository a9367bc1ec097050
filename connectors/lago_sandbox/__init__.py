"""A stand-in for Lago that behaves like Lago for all requests of this product (docs/lago-behaviour.md).

It is for demos, tests and users' CI. `create_sandbox` makes the application, `run_sandbox` serves it.
"""

from connectors.lago_sandbox.app import create_sandbox
from connectors.lago_sandbox.server import run_sandbox

__all__ = ["create_sandbox", "run_sandbox"]
