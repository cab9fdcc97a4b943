"""A finished run answers: loaded, promising, on files, over HTTP, and exported to where there is no torch."""
