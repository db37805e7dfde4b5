"""The bundle: model files with all that is needed to use them."""
