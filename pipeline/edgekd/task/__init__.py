"""Tasks: what goes into a network, what comes out of it, and how its quality is measured."""
