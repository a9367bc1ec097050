"""The environment variables of users' provider keys; `settings.py` reads them."""

from pydantic import BaseModel, Field

from connectors.config.types import FernetSecrets


class ProviderKeySettings(BaseModel):
    """A part of `Settings`."""

    provider_keys_secret: FernetSecrets = Field(
        (),
        description="Secrets that encrypt users' keys of LLM providers ([how](provider-keys.md)), 32 bytes in URL-safe Base64 each; the newest "
        "first, several separated by commas while one is replaced. Unset = such keys can be listed and revoked only.",
    )
    provider_keys_rotation_days: int = Field(
        90, ge=1, le=3650, description="Age in days at which a user's provider key is reported as due to be replaced."
    )
