"""Errors on labels beside errors of simulated properties, and the cost of a step: one rung of a ladder of models."""
