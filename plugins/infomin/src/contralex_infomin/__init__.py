"""InfoMin: views that share what the task needs and little else, and how much they share."""
