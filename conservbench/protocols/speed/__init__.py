"""How long a step takes, how that grows with the number of atoms, and how much memory it needs."""
