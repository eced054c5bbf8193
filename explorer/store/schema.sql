-- The tables of index.sqlite. FORMAT.md says what they mean; a test keeps the two alike.
-- Each section starts with a line "-- migration N: title" and is applied once; N goes to user_version.
-- Migration 2 starts from nothing: stores of format 1 are refused. Migration 3 can be computed from format 2.

-- migration 2: exemplars and intervals, statistics, labels, words, partners, text search
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
    neuron INTEGER NOT NULL REFERENCES neurons (neuron),
    rank INTEGER NOT NULL,
    image INTEGER NOT NULL REFERENCES images (image),
    score REAL NOT NULL,
    scale REAL NOT NULL,
    patch_map BLOB NOT NULL,
    PRIMARY KEY (neuron, rank)
) STRICT, WITHOUT ROWID;

CREATE TABLE interval_exemplars (
    neuron INTEGER NOT NULL REFERENCES neurons (neuron),
    interval INTEGER NOT NULL,
    image INTEGER NOT NULL REFERENCES images (image),
    score REAL NOT NULL,
    scale REAL NOT NULL,
    patch_map BLOB NOT NULL,
    PRIMARY KEY (neuron, interval)
) STRICT, WITHOUT ROWID;

CREATE TABLE neurons (
    neuron INTEGER PRIMARY KEY,
    class TEXT NOT NULL CHECK (class IN ('always_on', 'image_specific', 'rare', 'dead')),
    fires REAL NOT NULL,
    patch_fires REAL NOT NULL,
    in_top REAL NOT NULL,
    mean REAL NOT NULL,
    variance REAL NOT NULL,
    peak REAL NOT NULL,
    active_mean REAL NOT NULL,
    active_variance REAL NOT NULL,
    active_peak REAL NOT NULL,
    label TEXT NOT NULL,
    kind TEXT NOT NULL,
    precision REAL NOT NULL,
    lift REAL NOT NULL,
    average_precision REAL,
    monosemanticity REAL,
    monosemanticity_images INTEGER NOT NULL,
    score_histogram BLOB NOT NULL,
    active_histogram BLOB NOT NULL
) STRICT;

CREATE TABLE neuron_labels (
    neuron INTEGER NOT NULL REFERENCES neurons (neuron),
    rank INTEGER NOT NULL,
    kind TEXT NOT NULL,
    label TEXT NOT NULL,
    precision REAL NOT NULL,
    lift REAL NOT NULL,
    average_precision REAL,
    PRIMARY KEY (neuron, rank)
) STRICT, WITHOUT ROWID;

CREATE TABLE label_images (
    kind TEXT NOT NULL,
    label TEXT NOT NULL,
    images INTEGER NOT NULL,
    PRIMARY KEY (kind, label)
) STRICT, WITHOUT ROWID;

CREATE TABLE neuron_words (
    neuron INTEGER NOT NULL REFERENCES neurons (neuron),
    rank INTEGER NOT NULL,
    word TEXT NOT NULL,
    gain REAL NOT NULL,
    PRIMARY KEY (neuron, rank)
) STRICT, WITHOUT ROWID;

CREATE TABLE partners (
    neuron INTEGER NOT NULL REFERENCES neurons (neuron),
    rank INTEGER NOT NULL,
    partner INTEGER NOT NULL REFERENCES neurons (neuron),
    together REAL NOT NULL,
    cosine REAL NOT NULL,
    PRIMARY KEY (neuron, rank)
) STRICT, WITHOUT ROWID;

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

CREATE TABLE site (
    name TEXT PRIMARY KEY,
    vector BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE skipped (
    image_id TEXT PRIMARY KEY,
    origin TEXT NOT NULL,
    reason TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIRTUAL TABLE texts USING fts5 (
    neuron UNINDEXED,
    name,
    labels,
    words,
    tokenize = 'unicode61 remove_diacritics 2',
    prefix = '2 3'
);

CREATE INDEX neurons_by_in_top ON neurons (in_top);
CREATE INDEX neurons_by_class ON neurons (class);
CREATE INDEX neurons_by_label ON neurons (label);
CREATE INDEX concepts_by_neuron ON concepts (neuron);

-- migration 3: label entropy and a map of decoder directions
ALTER TABLE neurons ADD COLUMN entropy REAL;

CREATE TABLE positions (
    neuron INTEGER PRIMARY KEY REFERENCES neurons (neuron),
    x REAL NOT NULL,
    y REAL NOT NULL
) STRICT;
