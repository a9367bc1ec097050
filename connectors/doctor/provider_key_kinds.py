"""Cause and fix of each kind of finding about provider keys; connectors/doctor/catalogue.py turns them into kinds."""

from typing import Final

PROVIDER_KEY_TEXTS: Final = {
    "provider_keys_unreadable": (
        "Keys were stored under another secret. Their users' calls go without them, and the management API does not start.",
        "Add the secret that they were stored under to PROVIDER_KEYS_SECRET, behind the newest one.",
    ),
    "provider_keys_due": (
        "A key that is never replaced stays useful to everybody who ever got it. Their age is above PROVIDER_KEYS_ROTATION_DAYS.",
        "`meterbridge provider-keys list` names their users. A user stores a new key, and then revokes the old one.",
    ),
    "provider_keys_old_secret": (
        "PROVIDER_KEYS_SECRET has several secrets, and the older ones are still needed.",
        "`meterbridge provider-keys rotate-secret`; then remove the older secrets.",
    ),
}
