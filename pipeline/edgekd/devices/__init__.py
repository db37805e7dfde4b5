"""Devices: the schema of their files, instruction sets, what both mean for weights and activations."""
