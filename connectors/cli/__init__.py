"""The commands of `meterbridge`, a file a subject; connectors/cli/main.py puts them together."""
