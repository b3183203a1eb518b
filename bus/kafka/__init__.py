"""Kafka clients: configuration, the enforcer's exactly-once loop, windows."""
