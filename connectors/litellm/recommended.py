"""How LiteLLM loses least: its config.yaml, its environment and its stop; README.md shows it, `meterbridge doctor` prints it.

It cannot lose nothing: what LiteLLM has gathered is in its memory until the next flush, and goes with the process.
"""

from typing import Final

from connectors.litellm.seen import USAGE_PATH

#: Below it LiteLLM loses and repeats calls under ordinary load: a flush took no lock.
SAFE_VERSION: Final = (1, 108)
MAX_RETRIES: Final = 5
TIMEOUT_S: Final = 30
#: Parts of a record that are not metered: prompts, answers, and some of its size.
EXCLUDED: Final = (
    "messages",
    "response",
    "hidden_params",
    "model_parameters",
    "error_information",
)
#: More than half of a record, and not to be left out: LiteLLM takes it from its own spend writer too, which then fails at
#: every call (`KeyError` in litellm/proxy/spend_tracking/spend_tracking_utils.py, 1.90 to 1.110.2): no row is written.
NEEDED_BY_SPEND_LOGS: Final = "model_map_information"
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

#: For the environment of LiteLLM's process, which it reads before its file: seconds between two flushes; its default is 5.
ENVIRONMENT: Final = {"DEFAULT_FLUSH_INTERVAL_SECONDS": "1"}
#: Longer than a flush and its post: with it 8 of 8 calls arrived, with SIGTERM at once none (docs/litellm.md).
STOP_WAIT_S: Final = 3
#: In this order.
STOPPING: Final = (
    "Take the proxy out of traffic, and let the calls that run end.",
    f"Wait {STOP_WAIT_S} s: longer than one flush.",
    "Send SIGTERM. LiteLLM does not flush at SIGTERM: what is gathered then is lost.",
    "After a crash: `meterbridge reconcile --litellm` names what never arrived, `meterbridge backfill` sends it.",
)


def working_yaml(endpoint: str = ENDPOINT) -> str:
    """The configuration that posts to `endpoint`; for LiteLLM 1.108 or later."""
    return _YAML.format(excluded=", ".join(EXCLUDED), endpoint=endpoint, max_retries=MAX_RETRIES, timeout_s=TIMEOUT_S)
