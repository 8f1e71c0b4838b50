"""Observables: pure functions of states and models."""
