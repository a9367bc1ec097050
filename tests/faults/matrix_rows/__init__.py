"""Rows of the fault matrix, by what breaks."""
