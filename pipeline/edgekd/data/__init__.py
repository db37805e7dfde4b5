"""Data: where samples come from, how they are split, prepared, augmented and put into batches."""
