"""TinyStories (paper part C): stories, tokens, batches."""
