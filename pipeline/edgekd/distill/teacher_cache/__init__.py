"""A teacher that is asked once: what it said of each draw is kept on disk, and read back."""
