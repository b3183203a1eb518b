"""The local stack: real Kafka, its certificates and the services, for development and tests."""
