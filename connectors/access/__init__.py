"""Credentials of the management API beside the two keys of the environment: own API keys, users' tokens."""
