"""Credentials of the management API other than the two keys of the environment: API keys and users' tokens."""
