"""The configuration with which LiteLLM loses the least usage: its config.yaml, its environment, and how to stop it. README.md
shows it, and `meterbridge doctor` prints it.

Some loss remains: the calls that LiteLLM has collected since its last flush are only in memory, and are lost with the
process.
"""

from typing import Final

from connectors.litellm.seen import USAGE_PATH

#: Older versions lose and repeat calls under normal load, because a flush had no lock.
SAFE_VERSION: Final = (1, 108)
MAX_RETRIES: Final = 5
TIMEOUT_S: Final = 30
#: Parts of a record that are not metered: prompts, responses, and large fields.
EXCLUDED: Final = (
    "messages",
    "response",
    "hidden_params",
    "model_parameters",
    "error_information",
)
#: More than half of a record, but it must not be excluded: LiteLLM reads it in its own spend writer too, which then fails for
#: every call (`KeyError` in litellm/proxy/spend_tracking/spend_tracking_utils.py, 1.90 to 1.110.2) and writes no row.
NEEDED_BY_SPEND_LOGS: Final = "model_map_information"
ENDPOINT: Final = f"http://localhost:8080{USAGE_PATH}"
#: The variable of LiteLLM's environment with the header.
AUTHORIZATION: Final = "METERBRIDGE_AUTHORIZATION"

_YAML: Final = """\
litellm_settings:
  callbacks: ["meterbridge"]
  global_disable_no_log_param: true       # no client can hide its calls
  standard_logging_payload_excluded_fields:
    [{excluded}]

callback_settings:
  meterbridge:
    callback_type: generic_api
    endpoint: {endpoint}
    headers:
      Authorization: os.environ/{authorization}  # "Bearer " and one of WEBHOOK_TOKEN
    max_retries: {max_retries}                        # the default is 0, and LiteLLM keeps nothing it could not send
    retry_delay: 1
    timeout: {timeout_s}
"""

#: Environment of LiteLLM's process, which reads it before its file: seconds between two flushes; the default is 5.
ENVIRONMENT: Final = {"DEFAULT_FLUSH_INTERVAL_SECONDS": "1"}
#: Longer than a flush and its request: with this wait 8 of 8 calls arrived, with an immediate SIGTERM none (docs/litellm.md).
STOP_WAIT_S: Final = 3
#: The steps to stop a proxy, in order.
STOPPING: Final = (
    "Stop sending traffic to the proxy, and wait until its running calls end.",
    f"Wait {STOP_WAIT_S} s: longer than one flush.",
    "Send SIGTERM. LiteLLM does not flush at SIGTERM: what it has collected since the last flush is lost.",
    "After a crash: `meterbridge reconcile --litellm` lists calls that never arrived, `meterbridge backfill` sends them.",
)


def working_yaml(endpoint: str = ENDPOINT) -> str:
    """Return the configuration for LiteLLM 1.108 or later that sends usage to `endpoint`."""
    return _YAML.format(
        excluded=", ".join(EXCLUDED),
        endpoint=endpoint,
        authorization=AUTHORIZATION,
        max_retries=MAX_RETRIES,
        timeout_s=TIMEOUT_S,
    )
