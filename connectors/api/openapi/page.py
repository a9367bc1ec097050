"""Shows the OpenAPI document as an HTML page without scripts and without external files."""

import base64
import json
from collections.abc import Sequence
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import Any, Final

Json = dict[str, Any]

_STYLE: Final = files(__package__).joinpath("page.css").read_text("utf-8")
_HASH = base64.b64encode(sha256(_STYLE.encode()).digest()).decode()
#: The browser must load nothing, neither a script nor a picture; only the style above is allowed.
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page_of(document: Json) -> str:
    """Return an HTML page with all operations and all schemas of the document."""
    by_tag: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            by_tag.setdefault(operation["tags"][0], []).append(_operation(method, path, operation))
    info = document["info"]
    tags = "".join(f'<a href="#tag-{escape(tag)}">{escape(tag)}</a>' for tag in by_tag)
    chapters = "".join(
        f'<h2 id="tag-{escape(tag)}">{escape(tag)}</h2>{"".join(sections)}' for tag, sections in by_tag.items()
    )
    schemas = "".join(_schema(name, schema) for name, schema in document["components"]["schemas"].items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} API</h1><p>{escape(info['summary'])} Version {escape(info['version'])}, "
        f'<a href="openapi.json">OpenAPI {escape(document["openapi"])}</a>.</p>'
        f'<nav>{tags}<a href="#credentials">credentials</a><a href="#schemas">schemas</a></nav>{chapters}'
        f'<h2 id="credentials">credentials</h2>{_credentials(document)}<h2 id="schemas">schemas</h2>{schemas}</body></html>'
    )


def _operation(method: str, path: str, operation: Json) -> str:
    return (
        f'<details id="{escape(operation["operationId"])}"><summary><span class="method {method}">{method.upper()}</span>'
        f"<code>{escape(path)}</code><span>{_said(operation['summary'])}</span></summary><div>"
        f"{_paragraph(operation.get('description', ''))}{_parameters(operation)}{_body(operation)}{_answers(operation)}"
        f"<h3>Try it</h3><pre>{escape(_curl(method, path, operation))}</pre></div></details>"
    )


def _parameters(operation: Json) -> str:
    rows = [
        (
            f"<code>{escape(one['name'])}</code>",
            escape(one["in"] + (", required" if one["required"] else "")),
            f"<code>{escape(_short(one['schema']))}</code> {_said(one['schema'].get('description', ''))}",
        )
        for one in operation.get("parameters", ())
    ]
    return f"<h3>Parameters</h3>{_table(rows)}" if rows else ""


def _body(operation: Json) -> str:
    contents = operation.get("requestBody", {}).get("content", {})
    return "".join(
        f"<h3>Body, {escape(kind)}</h3>{_link(content['schema'])}"
        + (f"<pre>{escape(_pretty(content['example']))}</pre>" if "example" in content else "")
        for kind, content in contents.items()
    )


def _answers(operation: Json) -> str:
    rows = [
        (
            f"<code>{escape(status)}</code>",
            _said(answer["description"]),
            " ".join(_link(content["schema"]) for content in answer.get("content", {}).values()),
        )
        for status, answer in operation["responses"].items()
    ]
    return f"<h3>Answers</h3>{_table(rows)}"


def _credentials(document: Json) -> str:
    rows = [
        (f"<code>{escape(name)}</code>", escape(scheme["type"]), _said(scheme.get("description", "")))
        for name, scheme in document["components"]["securitySchemes"].items()
    ]
    return _table(rows)


def _schema(name: str, schema: Json) -> str:
    return (
        f'<details id="schema-{escape(name)}"><summary><code>{escape(name)}</code></summary>'
        f"<div><pre>{escape(_pretty(schema))}</pre></div></details>"
    )


def _curl(method: str, path: str, operation: Json) -> str:
    lines = [f"curl -X {method.upper()} http://localhost:3002{path}"]
    if any(operation.get("security", ())):
        lines.append("  -H 'Authorization: Bearer YOUR_KEY'")
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        body = json.dumps(content.get("example", {}), ensure_ascii=False).replace("'", "'\\''")
        lines += [f"  -H 'Content-Type: {kind}'", f"  -d '{body}'"]
    return " \\\n".join(lines)


def _link(schema: Json) -> str:
    """Return a link to a schema that has a name, else the schema itself."""
    name = schema.get("$ref", "").rpartition("/")[2]
    if name:
        return f'<a href="#schema-{escape(name)}"><code>{escape(name)}</code></a>'
    return f"<code>{escape(_short(schema))}</code>"


def _short(schema: Json) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_short(alternative) for alternative in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(json.dumps(value) for value in schema["enum"])
    kind = schema.get("type", "any")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _said(text: str) -> str:
    """Return text as HTML, with the words between backticks as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))


def _paragraph(text: str) -> str:
    return f"<p>{_said(text)}</p>" if text else ""


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    return f"<table>{''.join('<tr>' + ''.join(f'<td>{cell}</td>' for cell in row) + '</tr>' for row in rows)}</table>"


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
