"""Drift and fluctuation of the total energy in NVE dynamics, and how they depend on the time step."""
