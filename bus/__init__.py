"""sealbus: a secure event bus for multi-agent AI systems on Apache Kafka."""

import logging

__version__ = "0.1.0"

logging.getLogger("bus").addHandler(logging.NullHandler())
