"""The audit log as a chain of hashes: written so that a line that was changed, removed or put in is found."""
