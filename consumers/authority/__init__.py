"""The authority as a service: gRPC with client certificates."""
