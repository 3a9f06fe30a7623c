"""Reporting: rows, tables, plots and verdicts, all of them functions of rows."""
