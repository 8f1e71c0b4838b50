"""Molecular dynamics of batches: pure functions ``init`` and ``step`` on frozen states."""
