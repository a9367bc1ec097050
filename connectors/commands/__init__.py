"""The commands of `meterbridge`, a file a subject; connectors/cli.py puts them together."""
