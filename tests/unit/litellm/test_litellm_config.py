"""A config.yaml is read like LiteLLM reads it, and an error about it does not repeat its contents."""

from pathlib import Path

import pytest

from connectors.litellm.config import proxy_of, read_config
from connectors.litellm.seen import BOTH, SUCCESS, CallbackKind
from schemas.errors import ConfigurationError


def written(folder: Path, text: str, name: str = "config.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_an_included_file_overrides_settings_and_is_read_once(tmp_path: Path) -> None:
    """A configuration is often split; the callbacks may be in any part."""
    written(tmp_path, "litellm_settings: {callbacks: [lago]}\ninclude: [config.yaml]", "more.yaml")
    proxy = read_config(written(tmp_path, "include: [more.yaml]\nlitellm_settings: {callbacks: [webhook]}"))
    assert [callback.name for callback in proxy.callbacks] == ["lago"]


def test_a_name_in_the_success_and_the_failure_list_is_one_callback_for_both() -> None:
    proxy = proxy_of({"litellm_settings": {"success_callback": "x", "failure_callback": ["x", "y"], "callbacks": None}})
    [both, _] = proxy.callbacks
    assert (both.name, both.hears, both.listed) == ("x", BOTH, ("success_callback", "failure_callback"))


def test_a_custom_name_has_the_type_of_its_entry() -> None:
    settings = {"litellm_settings": {"success_callback": ["a", "b.c", "lago", "d"]}}
    entries = {"a": {"callback_type": "generic_api", "endpoint": "http://h", "headers": {"X-A": 1}}, "d": "no mapping"}
    a, code, lago, other = proxy_of({**settings, "callback_settings": entries}).callbacks
    assert [one.kind for one in (a, code, lago, other)] == [
        CallbackKind.GENERIC,
        CallbackKind.CUSTOM,
        CallbackKind.LAGO,
        CallbackKind.OTHER,
    ]
    assert (a.address, a.headers, a.hears) == ("http://h", {"x-a": "1"}, {SUCCESS})


def test_lagos_webhook_url_is_found_in_every_place() -> None:
    teams = {"default_team_settings": [{"callback_vars": {"lago_webhook_url": "http://x"}}]}
    assert proxy_of({"litellm_settings": teams}).lago_webhook_url
    assert not proxy_of({"litellm_settings": {"callback_vars": {"langfuse_host": "lago_webhook_url"}}}).lago_webhook_url


@pytest.mark.parametrize(
    "config", [{}, {"litellm_settings": None}, {"litellm_settings": [1], "callback_settings": "x"}]
)
def test_a_configuration_without_callbacks_is_valid(config: dict[str, object]) -> None:
    assert proxy_of(config).callbacks == ()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("master_key: sk-canary\n  : [", "is not YAML: the error is at line 2, column 3"),
        ("- sk-canary", "holds no settings"),
        ("sk-canary", "holds no settings"),
        ("", "holds no settings"),
        ("a: !!python/object:sk.canary {}", "is not YAML: the error is at line 1, column 4"),
        ("include: [sk-missing.yaml]", "cannot be read"),
    ],
)
def test_a_malformed_file_is_refused_without_its_contents(tmp_path: Path, text: str, complaint: str) -> None:
    """Such a file holds keys of every provider."""
    with pytest.raises(ConfigurationError) as refused:
        read_config(written(tmp_path, text))
    assert refused.value.reason == "litellm_config"
    assert complaint in refused.value.detail
    assert "canary" not in str(refused.value)


def test_aliases_that_repeat_or_contain_themselves_are_looked_at_once(tmp_path: Path) -> None:
    """The last line names its list 10^14 times."""
    lists = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 15))
    text = f"l0: &l0 [x]\n{lists}\nitself: &itself {{again: *itself}}"
    assert not read_config(written(tmp_path, text)).lago_webhook_url
    assert read_config(written(tmp_path, f"{text}\nlast: {{lago_webhook_url: x}}")).lago_webhook_url


def test_an_included_name_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_config(written(tmp_path, 'include: ["a\\0b.yaml"]'))
