"""Distillation: losses, features taken from traced graphs, layer pairing, and the training loop."""
