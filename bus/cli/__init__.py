"""The `bus` command: parse, call, print."""
