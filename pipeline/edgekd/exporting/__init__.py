"""Files that runtimes load, and the proof that they compute what the framework computes."""
