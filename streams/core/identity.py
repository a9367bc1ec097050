"""What tells two deliveries of one call from two calls.

LiteLLM has no id that does it alone: `litellm_call_id` is shared by a failed try and the success
that follows it and may be chosen by the client; `id` is the provider's and some providers reuse it.
Together with status and start time in milliseconds they do (docs/litellm.md has the evidence).
"""

from hashlib import blake2b

IDENTITY_BYTES = 16


def identity_of(namespace: str, *parts: str) -> bytes:
    """16 bytes out of the parts; absent parts are `""`.

    Each part is preceded by its length, so no two different lists of parts read alike.
    """
    for part in parts:
        namespace += f"|{len(part)}:{part}"
    return blake2b(namespace.encode("utf-8", "surrogatepass"), digest_size=IDENTITY_BYTES).digest()
