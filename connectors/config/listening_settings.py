"""The environment variables of ports, and of the proxies before them; `settings.py` reads them."""

from pydantic import BaseModel, Field

from connectors.config.types import Networks, Port


class ListeningSettings(BaseModel):
    """A part of `Settings`."""

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on; `0.0.0.0` in a container.")
    port: Port = Field(8080, description="Port of the webhooks; 0 = any free one.")
    api_port: Port | None = Field(
        None, description="Port of the management API; unset = `PORT`, or 3002 if the process serves only the API."
    )
    metrics_port: Port = Field(9090, description="Port of the Prometheus metrics.")
    trusted_proxies: Networks = Field(
        (), description="Addresses and networks of our own proxies; only their `X-Forwarded-For` is trusted."
    )
