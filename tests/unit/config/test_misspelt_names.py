"""A variable whose name resembles one of ours is reported; variables of other programs are ignored."""

import pytest

from connectors.config.misspelt_names import meant_by
from connectors.config.settings import VARIABLES, load_settings


def test_an_unknown_variable_that_resembles_ours_is_reported() -> None:
    environ = {"KAFKA_BOOTSTRAP_SERVER": "x", "LAGO_KEY": "x", "LAGO_API_KEY": "x", "KAFKA_PARTITIONS": "", "PATH": "x"}
    assert load_settings(environ).unknown == ("KAFKA_BOOTSTRAP_SERVER", "LAGO_KEY")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("WEBHOOK_TOKENS", "WEBHOOK_TOKEN"),
        ("WEBHOOK_SECRETS", "WEBHOOK_SECRET"),
        ("KAFKA_BOOTSTRAP_SERVER", "KAFKA_BOOTSTRAP_SERVERS"),
        ("LAGO_KEY", "LAGO_API_KEY"),
        ("WINDOW_SECOND", "WINDOW_SECONDS"),
        ("GRACE_SECOND", "GRACE_SECONDS"),
        ("ORG_ID_PREFIX", "ORG_ID_PREFIXES"),
        ("DATABSE_URL", "DATABASE_URL"),
    ],
)
def test_a_misspelt_setting_is_reported_with_the_intended_name(written: str, meant: str) -> None:
    assert load_settings({written: "x"}).unknown == (written,)
    assert meant_by(written, VARIABLES) == meant


def test_variables_of_other_programs_are_ignored() -> None:
    """Kubernetes, Postgres, LiteLLM and the shell have names that begin as ours do."""
    others = """PATH HOME LANG PWD HOSTNAME PORT_1 POSTGRES_SERVICE_HOST POSTGRES_PORT_5432_TCP PGHOST REDIS_HOST DB_URL
    LITELLM_LOG LITELLM_SALT_KEY OPENAI_API_KEY PYTHONPATH UI_PASSWORD LOG_DIR PROXY_HOST MAX_BUDGET BATCH_MODE"""
    assert load_settings(dict.fromkeys(others.split(), "x")).unknown == ()
