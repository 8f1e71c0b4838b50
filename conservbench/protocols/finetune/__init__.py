"""What tuning through the simulation buys, at the conditions of the tuning and at others."""
