"""Makes the identity of a call: equal for two deliveries of one call, different for two calls.

No single id of LiteLLM has this property. A failed attempt and the success after it share one `litellm_call_id`, which
the client may choose. The `id` comes from the provider, and some providers repeat it. Together with status and start
time in milliseconds they are unique (docs/litellm.md has the evidence).
"""

from hashlib import blake2b

IDENTITY_BYTES = 16
_OF_A_CALL = 4


def identity_of(namespace: str, *parts: str) -> bytes:
    """Return 16 bytes made of the parts; an absent part is `""`.

    Each part is preceded by its length, so two different lists of parts never produce the same text.
    """
    if len(parts) == _OF_A_CALL:  # nearly every record has four parts; the unrolled code takes two thirds of the time
        a, b, c, d = parts
        text = f"{namespace}|{len(a)}:{a}|{len(b)}:{b}|{len(c)}:{c}|{len(d)}:{d}"
    else:
        text = namespace + "".join([f"|{len(part)}:{part}" for part in parts])
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=IDENTITY_BYTES).digest()
