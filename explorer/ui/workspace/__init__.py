"""The workspace tab: picture, neurons, answers, bench."""
