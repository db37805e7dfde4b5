"""Sources of samples: one per file, registered under its name."""
