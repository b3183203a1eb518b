"""The enforcer: verifies, decides, masks, protects and derives each record."""
