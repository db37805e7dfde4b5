"""Typed records of ``run.json`` and ``study.json``, and the one codec that writes and reads them."""
