"""The watcher: alerts on hops, and hops to SIEM and tracing."""
