"""Figures laid out in rows and columns, as plain data that the page, the terminal and the card render."""
