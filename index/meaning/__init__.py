"""What the neurons mean: names from labels, scores, partners and words, all from a finished state."""
