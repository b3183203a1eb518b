"""Security tiers: one module each, one protocol, protect and open."""
