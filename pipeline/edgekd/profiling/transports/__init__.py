"""How files and processes get to a device."""
