"""Credentials replaced under load."""
