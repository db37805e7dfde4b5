"""Runtimes: how a file is loaded and run on this machine, and what the runtime makes of it."""
