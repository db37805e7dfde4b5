"""Measure artifacts: sessions, transports to devices, agents on devices, verdicts."""
