"""The witness: co-signs checkpoints of ledgers that extend what it co-signed before."""
