"""What is wrong with a request."""


class UnfitError(ValueError):
    """What is asked for does not fit the model or the machine: said by this program, not by a runtime."""
