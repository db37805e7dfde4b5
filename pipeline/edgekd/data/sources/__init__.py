"""Where samples come from: one file a source, registered under its name."""
