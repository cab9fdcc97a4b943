"""A finished run to a repository and back."""
