"""Training: data sets found by name, recipes, and the fit of two-headed networks."""
