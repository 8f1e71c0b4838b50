"""Audit of a force field's conservation laws: Jacobian symmetry, loop work, energy consistency and symmetries."""
