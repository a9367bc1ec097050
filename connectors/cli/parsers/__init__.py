"""Parsers of the commands, a file a command or group: words, options and help, and nothing of what the work needs."""
