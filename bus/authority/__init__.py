"""Who gets which keys: epochs, roots and their custody, agent bundles, the local issuer."""
