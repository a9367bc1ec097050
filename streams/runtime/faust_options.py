"""The options of every role's Faust app, but for its connection and its names (`streams/app.py`).

Durations are seconds unless a name says otherwise. What Faust has no option for: `faust_transport.py`, beside this file.
"""

from types import MappingProxyType
from typing import Any, Final

FAUST_OPTIONS: Final[MappingProxyType[str, Any]] = MappingProxyType(
    {
        "web_enabled": False,
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "table_standby_replicas": 0,
        "consumer_auto_offset_reset": "none",
        "broker_max_poll_records": 4000,
        # If a group leader's first metadata request goes to a failing broker, no worker gets a partition until the next
        # request, after five minutes by default.
        "consumer_metadata_max_age_ms": 5_000,
        "consumer_max_fetch_size": 4 << 20,
        "broker_session_timeout": 15.0,
        "broker_heartbeat_interval": 3.0,
        "broker_request_timeout": 30.0,
        "broker_rebalance_timeout": 30.0,
        "broker_commit_interval": 60.0,
        "stream_buffer_maxsize": 64,
        "stream_wait_empty": False,
        "stream_recovery_delay": 0.0,
    }
)
