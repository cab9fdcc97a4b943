"""What can be promised of answers: sets that hold the true class, and abstaining at a risk."""
