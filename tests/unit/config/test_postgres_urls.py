"""Postgres URLs as Prisma, Neon, libpq and SQLAlchemy write them: accepted with their meaning, or refused with the
parameter's name.
"""

import ssl
from typing import Any

import pytest
from asyncpg import connect_utils

from connectors.config.connections import postgres_url
from connectors.config.postgres_urls import connecting, most_connections, with_defaults
from connectors.config.settings import load_settings
from schemas.errors import ConfigurationError, Rejected

PASSWORD = "s3cret-word"
BASE = f"postgresql://u:{PASSWORD}@db.example:5433/litellm"


def parsed(url: str) -> tuple[Any, Any]:
    """(addresses, parameters) as asyncpg reads them."""
    arguments = connecting(url)
    return connect_utils._parse_connect_dsn_and_args(
        dsn=arguments["dsn"],
        ssl=arguments.get("ssl"),
        server_settings=arguments.get("server_settings"),
        **dict.fromkeys(
            [
                "host",
                "port",
                "user",
                "password",
                "passfile",
                "database",
                "service",
                "servicefile",
                "direct_tls",
                "target_session_attrs",
                "krbsrvname",
                "gsslib",
            ]
        ),
    )


@pytest.mark.parametrize(
    "scheme", ["postgres", "postgresql", "postgresql+asyncpg", "postgresql+psycopg2", "POSTGRESQL"]
)
def test_every_scheme_name_means_the_same(scheme: str) -> None:
    addresses, found = parsed(BASE.replace("postgresql", scheme, 1))
    assert addresses == [("db.example", 5433)]
    assert (found.user, found.password, found.database) == ("u", PASSWORD, "litellm")


def test_prismas_parameters_are_accepted() -> None:
    url = f"{BASE}?schema=litellm&connection_limit=3&pool_timeout=10&pgbouncer=true&connect_timeout=7&socket_timeout=5"
    arguments = connecting(url)
    assert arguments["server_settings"] == {"search_path": '"litellm"'}
    assert (arguments["statement_cache_size"], arguments["timeout"], most_connections(url)) == (0, 7.0, 3)
    assert "?" not in arguments["dsn"]
    assert most_connections(BASE) >= 100


def test_prismas_ssl_parameters_become_libpqs() -> None:
    strict = connecting(f"{BASE}?sslmode=require&sslaccept=strict")["ssl"]
    assert (strict.verify_mode, strict.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert connecting(f"{BASE}?sslmode=require&sslaccept=accept_invalid_certs")["dsn"].endswith("?sslmode=require")
    own = connecting(f"{BASE}?sslmode=require&sslaccept=strict&sslcert=/etc/ca.pem")["dsn"]
    assert "sslmode=verify-full" in own
    assert "sslrootcert=%2Fetc%2Fca.pem" in own
    assert "sslcert=" not in own


def test_neons_parameters_are_accepted() -> None:
    url = "postgresql://u:p@ep-cool-1.neon.tech/db?sslmode=require&channel_binding=require&options=endpoint%3Dep-cool-1"
    addresses, found = parsed(url)
    assert addresses == [("ep-cool-1.neon.tech", 5432)]
    assert found.server_settings == {"options": "endpoint=ep-cool-1"}
    assert found.sslmode.name == "require"


def test_libpqs_parameters_are_accepted() -> None:
    url = f"postgres://u:{PASSWORD}@one:1,two:2/db?target_session_attrs=read-write&application_name=x&keepalives=1&sslmode=disable"
    addresses, found = parsed(url)
    assert addresses == [("one", 1), ("two", 2)]
    assert (found.server_settings, found.target_session_attrs.name) == ({"application_name": "x"}, "read_write")
    assert connecting(f"{BASE}?sslmode=verify-full&sslrootcert=system")["ssl"].check_hostname
    assert parsed("postgresql:///db?host=/var/run/postgresql&user=u")[0] == ["/var/run/postgresql/.s.PGSQL.5432"]


def test_our_session_settings_win_and_the_application_name_is_that_of_the_url() -> None:
    ours = {"timezone": "UTC", "application_name": "meterbridge"}
    created = with_defaults(f"{BASE}?timezone=Mars&application_name=x&schema=s", timeout=5, server_settings=ours)
    assert created["server_settings"] == {"timezone": "UTC", "application_name": "x", "search_path": '"s"'}
    assert created["timeout"] == 5


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (f"{BASE}?service=prod", "parameter service, which is not supported"),
        (f"{BASE}?sslidentity=/x.p12", "parameter sslidentity, which"),
        (f"{BASE}?sslmode=maybe", "unknown sslmode"),
        (f"{BASE}?sslaccept=maybe", "unknown sslaccept"),
        (f"{BASE}?gssencmode=require", "gssencmode=require"),
        (f"{BASE}?connection_limit=many", "connection_limit that is not a whole number"),
        (f"mysql://u:{PASSWORD}@h/db", "postgresql://user:password@host"),
        (f"postgresql://u:{PASSWORD}?word=1@h/db", "%3F"),
        (f"postgresql://u:{PASSWORD}#1@h/db", "%23"),
        (f"{BASE}?{PASSWORD}/=1", "without a name"),
        (
            f"postgresql://u:{PASSWORD}@1@h:5432/db",
            "the sign @ in its user, password or database: write it percent-encoded, as %40",
        ),
        (f"postgresql://u:{PASSWORD}/1@h/db", "as %2F"),
        (f"postgresql://u:{PASSWORD}@/1@h/db", "as %40"),
        (f"postgresql://u:{PASSWORD}%1@h/db", "as %25"),
        (f"postgresql://u:{PASSWORD}[1@h/db", "as %5B"),
        (f"postgresql://u:{PASSWORD} 1@h/db", "a space in its user, password or database"),
        (f"postgresql://u:{PASSWORD}@h:5432:1/db", "a host or a port that cannot be"),
        (f"postgresql://u:{PASSWORD}@h:65536/db", "a host or a port that cannot be"),
    ],
)
def test_a_refused_url_is_explained_without_the_password(url: str, why: str) -> None:
    with pytest.raises(Rejected) as refused:
        connecting(url)
    assert why in refused.value.detail
    for variable in ("DATABASE_URL", "LITELLM_DATABASE_URL"):
        with pytest.raises(ConfigurationError, match=variable) as result:
            load_settings({variable: url})
        assert PASSWORD not in str(result.value)
        assert "word=" not in str(result.value)


def test_a_text_that_is_no_url_is_reported_under_its_setting() -> None:
    settings = load_settings({"DATABASE_URL": f"u:{PASSWORD}@h"})
    with pytest.raises(ConfigurationError, match="DATABASE_URL must be an address") as result:
        postgres_url(settings)
    assert PASSWORD not in str(result.value)
