"""The audit consumer: persists every hop in the ledger."""
