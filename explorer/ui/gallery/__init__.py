"""The gallery tab: all neurons as cards, filters, search, maps of the whole SAE."""
