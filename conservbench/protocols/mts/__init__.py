"""How far multiple time steps can be stretched before they change the simulation, and what they save."""
