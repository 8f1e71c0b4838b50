"""Protocols: what is measured, and how it is judged."""
