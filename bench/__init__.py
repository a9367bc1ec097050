"""What this product costs, measured beside its peers: the same records, broker, machine and run."""
