"""The roles as Faust apps, for Faust's own command.

`faust -A connectors.processes.faust_apps:meter worker --without-web` runs a role with the settings of the environment, as
`meterbridge worker --only meter` does, but without its metrics port. The names are those of `streams.app.ROLES`.
"""

from typing import Any

from connectors.processes.worker_parts import parts_from_environment
from streams.app import ROLES
from streams.runtime.faust_transport import App


def __getattr__(name: str) -> App:
    """Make the app of a role when Faust asks for it.

    Raises:
        AttributeError: there is no role of this name.
        ConfigurationError: a setting is missing or wrong.
    """
    if name not in ROLES:
        raise AttributeError(name)
    role = ROLES[name](parts_from_environment())

    async def close(_app: App, **_: Any) -> None:
        await role.close()

    # Faust cancels every task at its end. A partition that is not closed by then would report the cancellation as a
    # library's error.
    role.app.on_before_shutdown.connect(close, weak=False)
    return role.app
