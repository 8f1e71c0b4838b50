"""Potentials on fixed atom-centred descriptors, from linear to a network, with gradient or direct forces."""
