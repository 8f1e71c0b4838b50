"""What a heat bath must do to hold a model's dynamics at its temperature, and what the bath changes."""
