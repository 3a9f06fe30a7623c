"""Tasks: strings to train and test on, with the right answers for both operands."""
