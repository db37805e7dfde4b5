"""One exporter a file; each registers itself under the name of its format."""
