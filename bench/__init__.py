"""What `bus bench` runs: the enforcer beside a bare relay on the same broker."""
