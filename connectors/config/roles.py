"""The parts of an installation that `worker` and `serve` run, by name."""

from typing import Final

#: Those that run without Postgres.
ALWAYS: Final = ("meter", "sink", "retry")
ROLES: Final = (*ALWAYS, "project")
SERVED: Final = ("webhooks", "api")
