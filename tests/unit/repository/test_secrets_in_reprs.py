"""No object shows a secret in its `repr`: a log line or a failed assertion may print any object."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
#: Names of fields with a secret, and of Kafka's options, which have a password.
SECRET = re.compile(r"(^|_)(secrets?|password|token|api_key|credentials)$")
OPTIONS = ("kafka", "Mapping[str, Any]")
#: The class is a secret's, so its key is one.
KEYS = {("Secret", "key"), ("LagoAccess", "key"), ("LagoConnection", "key")}


def shown(source: str) -> Iterator[str]:
    """Yield the fields of dataclasses that a `repr` shows although they have a secret."""
    for node in ast.walk(ast.parse(source)):
        decorators = [ast.unparse(one) for one in node.decorator_list] if isinstance(node, ast.ClassDef) else []
        if not isinstance(node, ast.ClassDef) or not any(one.startswith("dataclass") for one in decorators):
            continue
        for member in node.body:
            if not isinstance(member, ast.AnnAssign) or not isinstance(member.target, ast.Name):
                continue
            name, kind = member.target.id, ast.unparse(member.annotation)
            is_secret = SECRET.search(name) or (name, kind) == OPTIONS or (node.name, name) in KEYS
            text = "" if member.value is None else ast.unparse(member.value)
            if (
                is_secret
                and "repr=False" not in "".join(decorators) + text
                and kind not in ("bool", "SecretStr", "Decimal")
            ):
                yield f"{node.name}.{name}"


def test_no_dataclass_shows_a_secret() -> None:
    files = [file for folder in ("schemas", "streams", "connectors") for file in (ROOT / folder).rglob("*.py")]
    assert len(files) > 500
    assert {f"{file.relative_to(ROOT)}: {one}" for file in files for one in shown(file.read_text())} == set()


def test_a_dataclass_with_kafkas_options_or_a_token_is_found() -> None:
    source = (
        "@dataclass(slots=True)\nclass Work:\n    kafka: Mapping[str, Any]\n    token: str = ''\n    key: bytes = b''"
    )
    assert list(shown(source)) == ["Work.kafka", "Work.token"]
