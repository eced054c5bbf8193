"""One module for each family: its deviations from `explorer.vlm.adapter.Adapter`, and how it opens."""
