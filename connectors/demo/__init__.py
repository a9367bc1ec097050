"""`meterbridge demo`: the whole product on this machine alone, fed with sample calls, ended by a reconciliation."""

from connectors.demo.run import run_demo

__all__ = ["run_demo"]
