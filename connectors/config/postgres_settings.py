"""The environment variables of the connection to Postgres; `settings.py` reads them."""

from typing import Annotated
from urllib.parse import quote

from pydantic import BaseModel, Field, SecretStr

from connectors.config.types import PostgresUrl


class PostgresSettings(BaseModel):
    """A part of `Settings`."""

    database_url: PostgresUrl | None = Field(None, description="Postgres as a URL; it replaces `POSTGRES_*`.")
    postgres_host: str | None = Field(
        None, description="Postgres' host; if it and `DATABASE_URL` are unset, there is no Postgres."
    )
    postgres_port: Annotated[int, Field(ge=1, le=65_535)] = Field(5432, description="Postgres' port.")
    postgres_user: str = Field("meterbridge", description="Postgres' user.")
    postgres_password: SecretStr | None = Field(None, description="Postgres' password.")
    postgres_db: str = Field("meterbridge", description="Postgres' database.")

    @property
    def postgres_url(self) -> SecretStr | None:
        """The URL of Postgres for asyncpg; None = the deployment has no Postgres."""
        if self.database_url or not self.postgres_host:
            return self.database_url
        password = f":{quote(self.postgres_password.get_secret_value(), safe='')}" if self.postgres_password else ""
        account = quote(self.postgres_user, safe="") + password
        return SecretStr(f"postgresql://{account}@{self.postgres_host}:{self.postgres_port}/{quote(self.postgres_db)}")
