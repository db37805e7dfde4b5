"""Graph passes, one family a file: each takes a traced graph module, changes it in place, and keeps its float values."""
