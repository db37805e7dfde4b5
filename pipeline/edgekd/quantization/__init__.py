"""Int8: the rules of the format, and training a graph to live with them."""
