"""Questions about why the model says what it says, asked of a session: sweeps, attribution, word maps."""
