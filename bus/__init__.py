"""sealbus: a secure event bus for multi-agent AI systems on Apache Kafka."""

__version__ = "0.1.0"
