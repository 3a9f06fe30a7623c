"""One ml_collections config for each figure or table of the paper."""
