"""Waits for Kafka's transaction coordinator, which a new cluster does not have yet.

Kafka creates `__transaction_state` for the first producer with a transactional id. Until then a change of a mapping or
an org would wait, and might time out. So the process waits at its start, and becomes ready afterwards.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog
from aiokafka.errors import KafkaError, TransactionalIdAuthorizationFailed

from streams.runtime.transactions import TransactionalWriter

#: The wait before the next request, and the time limit of one request, seconds.
_AGAIN_S, _LIMIT_S = 0.5, 10.0

_log = structlog.get_logger(__name__)


async def meet_coordinator(kafka: Mapping[str, Any], transactional_id: str) -> None:
    """Wait until the coordinator answers. The request is repeated without a limit.

    Args:
        kafka: connection options for aiokafka.
        transactional_id: an id for the request only, not for writing. If the account may not use it, the function
            returns, because other ids may work.
    """
    logged = False
    while True:
        writer = TransactionalWriter(kafka, transactional_id)
        try:
            async with asyncio.timeout(_LIMIT_S):
                await writer.start()
        except TransactionalIdAuthorizationFailed:
            return
        except (KafkaError, TimeoutError) as error:
            if not logged:
                _log.warning("coordinator_awaited", error=type(error).__name__)
            logged = True
            await asyncio.sleep(_AGAIN_S)
        else:
            return
        finally:
            await writer.stop()
