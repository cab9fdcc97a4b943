"""What Credibly claims of speed and size, measured: each file runs both sides and writes its result."""
