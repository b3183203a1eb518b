"""The services: the enforcer and the audit consumer. Each has a pure core and a thin shell."""
