"""Distillation losses, one file a family.

A loss is its own schema: the fields are its options in a recipe, calling it gives the value. The modules import torch only
when a loss is called, so that a recipe is checked without torch.
"""
