"""The ledger: an append-only store with an RFC 6962 tree, signed checkpoints and proofs."""
