"""Metrics: the quality of outputs, and the distance between two sets of outputs."""
