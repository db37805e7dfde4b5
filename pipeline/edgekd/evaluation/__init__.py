"""Evaluation: what exported files do to the samples, here and on devices."""
