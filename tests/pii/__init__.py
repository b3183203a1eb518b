"""How much of what they look for guardrails find, and how much of what they find is that."""
