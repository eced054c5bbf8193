"""Measurements of the index: ratios from one run, beside what a plain loop or a peer's way would take."""
