"""What a person sets up to make a point: picture, question, bench, settings. Kept apart from any page."""
