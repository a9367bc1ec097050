"""How the product grows: measured curves, and a calculator from calls a second to machines (docs/capacity.md)."""
