"""Exporters, one per format, and parity: each file is compared with the torch graph that it was made from."""
