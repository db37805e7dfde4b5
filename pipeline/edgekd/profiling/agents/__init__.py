"""Who measures on a device: a script that is sent there."""
