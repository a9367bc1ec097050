"""The recipes of docs/downstream.md for ClickHouse, run in an environment of its own (`make clickhouse-test`)."""
