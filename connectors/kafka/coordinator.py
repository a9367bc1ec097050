"""Changes of mappings and orgs need Kafka's transaction coordinator, which a fresh cluster has not got yet.

The first producer with a transactional id makes Kafka create `__transaction_state`; until that is there the first
change would wait for it, and might give up. So it is waited for at the start, and readiness says so.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog
from aiokafka.errors import KafkaError, TransactionalIdAuthorizationFailed

from streams.runtime.transactions import TransactionalWriter

_AGAIN_S, _LIMIT_S = 0.5, 10.0

_log = structlog.get_logger(__name__)


async def meet_coordinator(kafka: Mapping[str, Any], transactional_id: str, limit_s: float = _LIMIT_S) -> None:
    """Return once the coordinator answers; a cluster that makes it wait is asked again, for ever.

    Args:
        kafka: connection options for aiokafka.
        transactional_id: nobody writes under it. One that the account may not use says nothing of the others.
        limit_s: for one answer.
    """
    told = False
    while True:
        writer = TransactionalWriter(kafka, transactional_id)
        try:
            async with asyncio.timeout(limit_s):
                await writer.start()
        except TransactionalIdAuthorizationFailed:
            return
        except (KafkaError, TimeoutError) as error:
            if not told:
                _log.warning("coordinator_awaited", error=type(error).__name__)
            told = True
            await asyncio.sleep(_AGAIN_S)
        else:
            return
        finally:
            await writer.stop()
