"""Which certificates of servers are accepted: the same ones in every Python."""

import ssl


def as_other_clients_check(context: ssl.SSLContext) -> ssl.SSLContext:
    """Return `context`, changed so that it accepts the certificates that Kafka's and Postgres' own clients accept.

    From 3.13 on, Python also refuses a certificate that RFC 5280 calls incomplete, such as one without the identifier of its
    authority's key (https://docs.python.org/3.13/library/ssl.html#ssl.create_default_context). A private authority often signs
    such ones, and then half of the clients of one process would connect: librdkafka does, aiokafka does not. The authority,
    the name and the dates are verified as before.
    """
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
