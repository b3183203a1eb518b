"""Keys and what is done with them: derivation, MAC and seal of records, DEKs, signatures, hash trees.

Suites are numbered in the wire format and never edited. Primitives are those of ``cryptography``. No I/O.
"""
