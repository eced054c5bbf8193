"""What one pass over the images keeps: exact, bounded, and the same in whatever order the chunks come."""
