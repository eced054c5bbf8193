"""One neuron's own page."""
