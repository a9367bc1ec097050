"""The environment variables of the deployment's names; `settings.py` reads them."""

from pydantic import BaseModel, Field

from connectors.config.types import Name, Prefix


class DeploymentSettings(BaseModel):
    """A part of `Settings`."""

    topic_prefix: Prefix = Field(
        "", description="Prefix of every topic, consumer group and transactional id, e.g. `billing.`."
    )
    deployment_name: Name = Field(
        "meterbridge",
        description="First part of every Lago transaction id. Two deployments that bill into one Lago need two names.",
    )
