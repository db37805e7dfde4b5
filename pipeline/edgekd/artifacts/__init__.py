"""Model files, those of edgekd and any other: what they are, and ``edgekd profile``."""
