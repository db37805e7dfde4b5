"""Typed records of ``run.json`` and ``study.json``, and the codec that writes and reads them."""
