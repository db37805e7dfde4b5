"""Evaluation: outputs of the exported files on the test split, on this machine and on devices."""
