"""A fit from its texts to a finished run."""
