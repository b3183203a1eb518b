"""Leak replay: recorded traces of agents sent over a stack, and what each observer finds of their private items."""
