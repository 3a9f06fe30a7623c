"""Experiments: from a config to rows, figures and a summary."""
