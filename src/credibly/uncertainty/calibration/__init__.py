"""Maps that make probabilities hold, and which of them to take."""
