"""Runnable examples, one a tier."""
