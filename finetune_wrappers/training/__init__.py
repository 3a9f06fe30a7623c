"""Training: stages, the store that keeps them, and the compiled loops that fill it."""
