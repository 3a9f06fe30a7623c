"""Models: compiled Tracr programs and their Flax ports. Every model returns a ModelOutput."""
