"""Training of SAEs: pictures, vectors through a shuffle buffer, measures, and the record of a run."""
