"""Why does the model say this? Words by neurons, attribution, repair, sweeps."""
