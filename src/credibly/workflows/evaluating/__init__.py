"""What is held against other texts: a run, the saved predictions of any model, and a file against a run."""
