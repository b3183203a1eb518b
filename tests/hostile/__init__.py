"""Hostile clients: an agent's own credentials, raw Kafka protocol and crafted records, against a real stack."""
