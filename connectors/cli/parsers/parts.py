"""The parts of an installation that `serve` and `worker` run, by name. They are not in the parsers' modules, because
those load the library of the command line.
"""

from typing import Final

ROLES: Final = ("meter", "sink", "retry", "project")
SERVED: Final = ("webhooks", "api")
