"""What figures are called, how they are written, and what may be claimed of them."""
