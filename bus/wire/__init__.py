"""Bytes: names, schemas, the codec, what every MAC, AAD and signature covers, and the framing of each record.

Nothing here does I/O, holds a key or decides anything. The page that describes it is docs/wire-format.md.
"""
