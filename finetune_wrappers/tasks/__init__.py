"""Tasks: what a model is trained on and how its answers are judged."""
