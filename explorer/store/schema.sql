-- The tables of index.sqlite. FORMAT.md says what they mean; a test keeps the two alike.
-- Each section starts with a line "-- migration N: title" and is applied once; N goes to user_version.

-- migration 1: exemplars, images, neurons, concepts, probes, skipped
CREATE TABLE images (
    image INTEGER PRIMARY KEY,
    image_id TEXT NOT NULL UNIQUE,
    origin TEXT NOT NULL,
    grid_rows INTEGER NOT NULL,
    grid_cols INTEGER NOT NULL,
    thumbnail BLOB NOT NULL,
    labels TEXT NOT NULL
) STRICT;

CREATE TABLE exemplars (
    neuron INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    image INTEGER NOT NULL REFERENCES images (image),
    score REAL NOT NULL,
    scale REAL NOT NULL,
    patch_map BLOB NOT NULL,
    PRIMARY KEY (neuron, rank)
) STRICT, WITHOUT ROWID;

CREATE TABLE neurons (
    neuron INTEGER PRIMARY KEY,
    fires REAL NOT NULL,
    in_top REAL NOT NULL,
    mean REAL NOT NULL,
    peak REAL NOT NULL,
    label TEXT NOT NULL,
    precision REAL NOT NULL
) STRICT;

CREATE TABLE concepts (
    concept TEXT NOT NULL,
    rank INTEGER NOT NULL,
    neuron INTEGER NOT NULL REFERENCES neurons (neuron),
    score REAL NOT NULL,
    precision REAL NOT NULL,
    on_mean REAL NOT NULL,
    off_mean REAL NOT NULL,
    firing REAL NOT NULL,
    reach REAL NOT NULL,
    PRIMARY KEY (concept, rank)
) STRICT, WITHOUT ROWID;

CREATE TABLE probes (
    place INTEGER PRIMARY KEY,
    concept TEXT NOT NULL,
    bias REAL,
    weight BLOB NOT NULL
) STRICT;

CREATE TABLE skipped (
    image_id TEXT PRIMARY KEY,
    origin TEXT NOT NULL,
    reason TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX neurons_by_in_top ON neurons (in_top);
CREATE INDEX concepts_by_neuron ON concepts (neuron);
