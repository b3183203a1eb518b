"""The attester's side (RATS, RFC 9334): makes evidence on the agent's machine. Reads files and runs tpm2-tools."""
