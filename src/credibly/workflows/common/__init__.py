"""What the verbs share: what a run holds and began with, its recipe, and how long texts are told of."""
