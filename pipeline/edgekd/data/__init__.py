"""Data: sources of samples, splits, preparation, augmentation, batches."""
