"""Words, options and help of `meterbridge webhooks`."""

from connectors.cli.parsers.deferred import deferred
from connectors.cli.parsers.options import AsJson, group

webhooks = group("Outgoing webhooks: signed messages to your own programs.")


@webhooks.command("test", epilog="Example: meterbridge webhooks test")
@deferred()
def send_test(as_json: AsJson = False) -> None:
    """Send a signed test message to each endpoint. A disabled endpoint that accepts the message is enabled again.

    Exit code 1: an endpoint did not accept it.
    """
