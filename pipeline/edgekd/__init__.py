"""edgekd: distill → quantize → export → profile → report, from one recipe.

Importing this package is instant: torch and the runtimes are imported by the stages that need them.
"""

__version__ = "0.1.0"
