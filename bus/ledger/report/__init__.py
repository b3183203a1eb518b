"""Reports on a period of the ledger: figures, each a count of hops that anybody can count again."""
