"""The proxies of one run, with the configuration of every scenario."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from connectors.litellm.recommended import EXCLUDED, MAX_RETRIES, TIMEOUT_S
from tests.litellm_matrix.scenario import SCENARIOS, Scenario

_FOLDER = Path(__file__).parent
_PROVIDER_KEY = "sk-provider"
_RETRIES = 2
MASTER_KEY = "sk-matrix-master"
TOKEN, SECRET = "a-token-of-the-matrix", "a-secret-of-the-matrix"
#: Of our plugin, as LiteLLM imports it.
PLUGIN = _FOLDER.parents[1] / "connectors" / "litellm" / "plugin"
#: LiteLLM up to 1.85 finds a callback only in a file beside its `config.yaml`.
_PLUGIN = "from meterbridge_litellm import handler as handler\n"
#: The callbacks of each proxy, by the endpoint to which each posts, with settings of `generic_api`; None = our plugin.
PROXIES: dict[str, dict[str, dict[str, Any] | None]] = {
    "main": {
        "main": {},
        "ndjson": {"log_format": "ndjson"},
        "single": {"log_format": "single"},
        "outage": {},
        "slow": {},
    },
    "sigterm": {"sigterm": {}},
    "plugin": {"plugin": None},
    "plugin-killed": {"plugin": None},
}


def owners() -> dict[str, Any]:
    """The owner of each key."""
    return {
        one.name: {"user_id": "u." + one.name, "team_id": "t." + one.name, "key_alias": one.name, **one.who}
        for one in SCENARIOS.values()
        if one.who is not None
    }


def _deployments(scenario: Scenario, provider: str) -> list[dict[str, Any]]:
    found = []
    for model in scenario.deployments:
        base = f"{provider}/s/{model.at or scenario.name}"
        of_openai = model.model.partition("/")[0] in {"openai", "text-completion-openai"}
        params = {"model": model.model, "api_base": base + "/v1" * of_openai, "api_key": _PROVIDER_KEY, **model.params}
        found.append({"model_name": model.name, "litellm_params": params})
    return found


def configuration(proxy: str, provider: str, usage: str) -> dict[str, Any]:
    """The `config.yaml`, as JSON. Args: provider, usage: URLs without a path, of the provider and of the entrance."""
    generic = {
        "to_" + endpoint: {
            "callback_type": "generic_api",
            "endpoint": f"{usage}/{endpoint}/webhook/litellm/usage",
            "headers": {"Authorization": "Bearer " + TOKEN},
            "max_retries": MAX_RETRIES,
            "retry_delay": 1,
            "timeout": TIMEOUT_S,
            **settings,
        }
        for endpoint, settings in PROXIES[proxy].items()
        if settings is not None
    }
    callbacks = [*generic, "matrix_inside.tap"] if generic else ["matrix_plugin.handler"]
    target = {"target": provider + "/s/pass-own/v1/chat/completions", "headers": {"Authorization": "Bearer sk"}}
    guards = [
        {"guardrail_name": f"refuse-{when}", "litellm_params": {"guardrail": f"matrix_inside.{name}", "mode": mode}}
        for when, name, mode in (("before", "Before", "pre_call"), ("after", "After", "post_call"))
    ]
    return {
        "model_list": [each for one in SCENARIOS.values() for each in _deployments(one, provider)],
        "files_settings": [
            {"custom_llm_provider": "openai", "api_base": provider + "/s/batch/v1", "api_key": _PROVIDER_KEY}
        ],
        "guardrails": guards,
        "router_settings": {
            "num_retries": _RETRIES,
            "retry_after": 0,
            "fallbacks": [{"fallback": ["fallback-second"]}],
            "model_group_alias": {"alias": "alias-target"},
            "allowed_fails": 1000,
            "disable_cooldowns": True,
        },
        "litellm_settings": {
            "callbacks": callbacks,
            "global_disable_no_log_param": True,
            "standard_logging_payload_excluded_fields": [part for part in EXCLUDED if part != "response"],
            "cache": True,
            "cache_params": {"type": "local", "mode": "default_off"},
        },
        "callback_settings": generic,
        "general_settings": {
            "master_key": MASTER_KEY,
            "custom_auth": "matrix_inside.user_api_key_auth",
            "pass_through_endpoints": [{"path": "/passing", **target}],
        },
    }


def files_of(config: Mapping[str, Any]) -> dict[str, str]:
    """The files beside a proxy's `config.yaml`, and that file."""
    modules = {f"matrix_{name}.py": (_FOLDER / f"{name}.py").read_text() for name in ("inside", "planted")}
    result = {"who.json": json.dumps(owners()), "config.yaml": json.dumps(config)}
    return {**modules, "matrix_plugin.py": _PLUGIN, **result}
