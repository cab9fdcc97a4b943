"""Member sources: one file each, with the same names in the same order."""
