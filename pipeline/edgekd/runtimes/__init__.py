"""Runtimes: load and run a file on this machine, and inspect the graph that the runtime makes of it."""
