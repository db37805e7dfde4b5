"""Features as outputs of a traced graph: which layers there are, and which of them are compared."""
