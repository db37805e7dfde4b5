"""Tasks: what goes into a network, what comes out of it, and how good it is."""
