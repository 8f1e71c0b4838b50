"""A third party's model: forces from one equivariant network, and no energy at all."""
