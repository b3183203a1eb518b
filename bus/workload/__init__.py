"""Workloads: a function that computes on what nobody else may read, in a process that can reach nothing."""
