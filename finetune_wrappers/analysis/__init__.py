"""Analysis: pruning, attention, probing and revival, on parameter pytrees and ModelOutput."""
