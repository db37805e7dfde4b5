"""Measure artifacts: one protocol, every runtime in a process of its own, all variants taking turns in one session."""
