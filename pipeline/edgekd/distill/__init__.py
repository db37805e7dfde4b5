"""Distillation: losses, adapters, teachers, the teacher cache."""
