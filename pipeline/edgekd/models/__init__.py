"""Networks: built by name or from the user's own file, and their weights."""
