"""Every figure of the tables, with its interval over resamples of the rows."""
