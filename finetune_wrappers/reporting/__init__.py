"""Rows of measurements, and the tables, plots and claims made from them."""
