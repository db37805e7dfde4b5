"""The engine: plan a recipe, execute its stages, hold the gates, write the run folder."""
