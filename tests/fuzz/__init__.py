"""Fuzzing of every reader of bytes from outside: `python -m tests.fuzz` for the long form, tests for the short one."""
