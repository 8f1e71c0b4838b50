"""Properties of a simulation against those of a reference: of the crystal at rest, and of the liquid in motion."""
