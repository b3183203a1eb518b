"""Verifiers of attestation evidence, and the signed result (RATS, RFC 9334). Pure: no file, process or network."""
