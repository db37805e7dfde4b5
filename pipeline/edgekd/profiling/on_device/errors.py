"""Errors of a request."""


class UnfitError(ValueError):
    """A request that does not fit the model or the machine; raised by this program, not by a runtime."""
