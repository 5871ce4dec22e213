"""The closed world: a town no model has seen, with everything that RLHF needs and the truth of every answer."""
