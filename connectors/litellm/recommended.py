"""The part of LiteLLM's config.yaml that loses nothing: what README.md shows and `meterbridge doctor` prints."""

from typing import Final

from connectors.litellm.seen import USAGE_PATH

#: Below it LiteLLM loses and repeats calls under ordinary load: a flush took no lock.
SAFE_VERSION: Final = (1, 108)
MAX_RETRIES: Final = 5
TIMEOUT_S: Final = 30
#: Parts of a record that are not metered: prompts, answers, and most of its size.
EXCLUDED: Final = (
    "messages",
    "response",
    "model_map_information",
    "hidden_params",
    "model_parameters",
    "error_information",
)
ENDPOINT: Final = f"http://localhost:8080{USAGE_PATH}"

_YAML: Final = """\
litellm_settings:
  callbacks: ["meterbridge"]
  global_disable_no_log_param: true       # no client can leave the books
  standard_logging_payload_excluded_fields:
    [{excluded}]

callback_settings:
  meterbridge:
    callback_type: generic_api
    endpoint: {endpoint}
    headers:
      Authorization: os.environ/METERBRIDGE_AUTHORIZATION  # "Bearer " and one of WEBHOOK_TOKEN
    max_retries: {max_retries}                        # the default is 0, and LiteLLM keeps nothing it could not send
    retry_delay: 1
    timeout: {timeout_s}
"""


def working_yaml(endpoint: str = ENDPOINT) -> str:
    """The configuration that posts to `endpoint`; for LiteLLM 1.108 or later."""
    return _YAML.format(excluded=", ".join(EXCLUDED), endpoint=endpoint, max_retries=MAX_RETRIES, timeout_s=TIMEOUT_S)
