"""The cases tab: set-ups saved, opened and replayed."""
