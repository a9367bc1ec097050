"""`meterbridge demo`: runs the whole product on this machine with sample calls, and ends with a reconciliation."""

from connectors.demo.run import run_demo

__all__ = ["run_demo"]
