"""Fit potentials on fixed descriptors: least squares solved directly, and networks by quasi-Newton steps."""
