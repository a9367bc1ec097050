"""The commands of `meterbridge`, one file per subject; connectors/cli/main.py puts them together."""
