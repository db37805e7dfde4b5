"""Studies: compare methods over teacher-student pairs and seeds."""
