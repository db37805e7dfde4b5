"""The engine: a recipe is planned, its stages are executed, and the run's folder is written."""
