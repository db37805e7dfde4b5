"""Metrics: how good outputs are, and how far two sets of outputs are apart."""
