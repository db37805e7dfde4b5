"""A format for edgekd: a network as arrays of numpy and a list of steps, run by numpy alone."""
