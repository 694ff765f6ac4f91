"""Histories rewritten from blobs and LFS pointers to checkpoints, and back (docs/design/007-migrate.md)."""
