"""What is printed: a report, and whether a file is like what a run was trained on."""
