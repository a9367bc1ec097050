"""A `TOPIC_PREFIX` of a test, or of a module of tests, and the end of its topics."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka.admin import AdminClient

from tests.support.eventually import PATIENCE


@contextmanager
def own_topic_prefix(bootstrap: str) -> Iterator[str]:
    """Yield a prefix that no other test has; its topics are deleted afterwards."""
    prefix = f"t{uuid.uuid4().hex[:8]}."
    yield prefix
    admin = AdminClient({"bootstrap.servers": bootstrap})
    mine = [name for name in admin.list_topics(timeout=10 * PATIENCE).topics if name.startswith(prefix)]
    if mine:
        for deleted in admin.delete_topics(mine, operation_timeout=10).values():
            deleted.result()
