"""Translates a Postgres URL with parameters of Prisma, Neon, libpq or SQLAlchemy for asyncpg.

asyncpg sends parameters that it does not know to the server, which then refuses the connection. So every parameter is
either translated, ignored, or refused with its name, never with its value.

Sources: https://www.postgresql.org/docs/current/libpq-connect.html (33.1.2),
https://www.prisma.io/docs/orm/overview/databases/postgresql (arguments),
https://neon.com/docs/connect/connect-securely.
"""

import re
import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from connectors.config.certificate_checks import as_other_clients_check
from schemas.errors import Rejected


def _names(text: str) -> frozenset[str]:
    """Return the names in a text, which are separated by spaces."""
    return frozenset(text.split())


BAD_URL: Final = "bad_url"
_SCHEMES: Final = re.compile(r"postgres(ql)?(\+(asyncpg|psycopg2?|psycopg_async))?", re.IGNORECASE)
#: Parameters that asyncpg itself reads from the URL.
_ASYNCPG: Final = _names(
    "host port user password dbname database passfile sslmode sslcert sslkey sslrootcert sslcrl "
    "sslpassword ssl_min_protocol_version ssl_max_protocol_version sslnegotiation target_session_attrs "
    "krbsrvname gsslib"
)
#: Settings of the session, which the server accepts.
_SERVER: Final = _names(
    "application_name options search_path timezone statement_timeout lock_timeout "
    "idle_in_transaction_session_timeout datestyle default_transaction_isolation"
)
#: Parameters that are ignored: about other connection pools, or without effect with asyncpg.
_IDLE: Final = _names(
    "pool_timeout socket_timeout max_connection_lifetime max_idle_connection_lifetime "
    "single_use_connections channel_binding gssencmode sslcompression sslsni keepalives keepalives_idle "
    "keepalives_interval keepalives_count tcp_user_timeout load_balance_hosts fallback_application_name "
    "client_encoding"
)
_TRANSLATED: Final = _names(
    "schema connection_limit pgbouncer statement_cache_size prepared_statement_cache_size connect_timeout "
    "sslaccept ssl uselibpqcompat"
)
#: Prisma's `sslaccept` as a mode of libpq.
_ACCEPTS: Final = {"strict": "verify-full", "accept_invalid_certs": "require"}
_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_MOST_CONNECTIONS: Final = 1000
_FORM: Final = "must be an address such as postgresql://user:password@host:5432/database"
#: Signs that end a part of a URL, or have another meaning in it.
_RESERVED: Final = "@/?#[] "
_MAX_PORT: Final = 65_535


class DatabaseUrl(str):
    """A URL of Postgres. The `repr` does not contain user and password."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"DatabaseUrl({urlsplit(self).netloc.rpartition('@')[2]!r})"


def connecting(url: str) -> dict[str, Any]:
    """Return the arguments for `asyncpg.connect` or `create_pool`: `dsn`, and the parameters of the URL.

    Raises:
        Rejected: `bad_url`: it is not a Postgres URL, or has a parameter that is not supported; the detail names it.
    """
    dsn, given = _taken_apart(url)
    arguments: dict[str, Any] = {}
    query = {name: value for name, value in given.items() if name in _ASYNCPG}
    server = {name: value for name, value in given.items() if name in _SERVER}
    if schema := given.get("schema"):
        server["search_path"] = '"' + schema.replace('"', '""') + '"'
    if given.get("pgbouncer", "").lower() == "true":
        arguments["statement_cache_size"] = 0
    for name in ("statement_cache_size", "prepared_statement_cache_size"):
        if name in given:
            arguments["statement_cache_size"] = _number(name, given[name])
    _number("connection_limit", given.get("connection_limit", "0"))
    if seconds := _number("connect_timeout", given.get("connect_timeout", "0")):
        arguments["timeout"] = float(seconds)
    query |= _encryption(given, arguments)
    query = {name: value for name, value in query.items() if value}
    if server:
        arguments["server_settings"] = server
    return {"dsn": dsn + (f"?{urlencode(query, quote_via=quote)}" if query else ""), **arguments}


def with_defaults(url: str, **defaults: Any) -> dict[str, Any]:
    """Return `connecting`, with defaults for everything that the URL does not set. Settings of the session cannot be
    changed by the URL, because the code relies on them; only `application_name` can.
    """
    parameters = connecting(url)
    theirs, ours = parameters.pop("server_settings", {}), defaults.pop("server_settings", {})
    server = {**theirs, **ours, **{name: theirs[name] for name in ("application_name",) if name in theirs}}
    return {**defaults, **parameters, **({"server_settings": server} if server else {})}


def most_connections(url: str) -> int:
    """Return how many connections a pool may have (`connection_limit`); a large number if the URL does not say."""
    given = _taken_apart(url)[1].get("connection_limit")
    return _MOST_CONNECTIONS if given is None else max(1, _number("connection_limit", given))


def _taken_apart(url: str) -> tuple[str, Mapping[str, str]]:
    """Return the URL without its parameters, with the scheme of asyncpg; and the parameters, all of which are known."""
    scheme, _, rest = url.partition("://")
    if not rest or not _SCHEMES.fullmatch(scheme):
        raise Rejected(BAD_URL, _FORM)
    _check_account(rest)
    try:
        parts = urlsplit(url)
        given = dict(parse_qsl(parts.query, keep_blank_values=True))
    except ValueError:
        raise Rejected(BAD_URL, _FORM) from None
    if not all(map(_is_place, parts.netloc.rpartition("@")[2].split(","))):
        raise Rejected(BAD_URL, f"has a host or a port that cannot be: it {_FORM}")
    if parts.fragment:
        raise Rejected(BAD_URL, "has a # in it: write it as %23")
    ours = _ASYNCPG | _SERVER | _IDLE | _TRANSLATED
    unknown = sorted(name for name in given if name not in ours)
    if unknown:
        raise Rejected(BAD_URL, f"has the parameter {', '.join(map(_shown, unknown))}, which is not supported")
    return urlunsplit(("postgresql", parts.netloc, parts.path, "", "")), {k: v for k, v in given.items() if v}


def _check_account(rest: str) -> None:
    """Check that user and password have no sign that means something else in a URL: such a URL would lead to another host,
    or to a wrong password.

    Args:
        rest: the URL without its scheme.
    """
    place = re.split(r"[/?#]", rest, maxsplit=1)[0]
    # If there is no @ before the first of / ? and #, this sign is in the password, and the host comes after a later @.
    within = re.split(r"[?#]", rest, maxsplit=1)[0] if "@" in place else rest if place else ""
    account = within.rpartition("@")[0]
    signs = [one for one in account if one in _RESERVED] + re.findall(r"%(?![0-9A-Fa-f]{2})", account)
    if signs:
        name = "a space" if signs[0] == " " else f"the sign {signs[0]}"
        written = quote(signs[0], safe="")
        raise Rejected(BAD_URL, f"has {name} in its user, password or database: write it percent-encoded, as {written}")


def _is_place(place: str) -> bool:
    """Return whether a host with or without a port can be one; `""` is the local one."""
    found = re.fullmatch(r"(?:\[[^\[\]]*\]|[^:\[\]\s]*)(?::([0-9]{0,5}))?", place)
    return found is not None and int(found[1] or 0) <= _MAX_PORT


def _encryption(given: Mapping[str, str], arguments: dict[str, Any]) -> dict[str, str]:
    """Return the encryption that the URL requests with other parameters than libpq's; default: the system's
    authorities.
    """
    mode = given.get("sslmode") or given.get("ssl", "")
    mode = {"true": "require", "false": "disable", "no-verify": "require"}.get(mode, mode)
    accept = given.get("sslaccept", "")
    if mode and mode not in _MODES:
        raise Rejected(BAD_URL, f"has an unknown sslmode; use one of {', '.join(_MODES)}")
    if accept and accept not in _ACCEPTS:
        raise Rejected(BAD_URL, f"has an unknown sslaccept; use one of {', '.join(_ACCEPTS)}")
    if given.get("gssencmode") == "require":
        raise Rejected(BAD_URL, "has the parameter gssencmode=require, which is not supported")
    if mode == "require" and accept == "strict":
        mode = "verify-full"
    parameters = {"sslmode": mode}
    authority = given.get("sslrootcert", "")
    if "sslcert" in given and "sslkey" not in given and not authority:
        authority, parameters["sslcert"] = (
            given["sslcert"],
            "",
        )  # Prisma: this is the authority's certificate, not the client's
    if authority == "system" or (mode.startswith("verify") and not authority):
        context = as_other_clients_check(ssl.create_default_context())
        context.check_hostname = mode != "verify-ca"
        arguments["ssl"], authority = context, ""
    return {**parameters, "sslrootcert": authority}


def _number(name: str, text: str) -> int:
    if not re.fullmatch(r"\d{1,6}", text):
        raise Rejected(BAD_URL, f"has a {name} that is not a whole number")
    return int(text)


def _shown(name: str) -> str:
    """Return the name of a parameter, unless it may be a part of a password that contains a `?`."""
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,40}", name) else "without a name"
