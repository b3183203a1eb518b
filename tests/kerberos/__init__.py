"""Agents that come with Kerberos tickets, on a real MIT KDC and a real broker."""
