"""Another student of members that are there already."""
