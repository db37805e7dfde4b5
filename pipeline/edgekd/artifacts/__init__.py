"""Model files, made by edgekd or not: what they are, and ``edgekd profile``."""
