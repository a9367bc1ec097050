"""Parsers of the commands, one file per command or group: arguments, options and help. They import nothing that the
commands' work needs.
"""
