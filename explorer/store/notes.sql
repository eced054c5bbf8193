-- The tables of notes.sqlite. FORMAT.md says what they mean; a test keeps the two alike.
-- Each section starts with a line "-- migration N: title" and is applied once; N goes to user_version.

-- migration 1: names and notes
CREATE TABLE owner (
    sae_id TEXT NOT NULL
) STRICT;

CREATE TABLE notes (
    neuron INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    note TEXT NOT NULL,
    changed TEXT NOT NULL
) STRICT;

CREATE VIRTUAL TABLE note_texts USING fts5 (
    name,
    note,
    content = 'notes',
    content_rowid = 'neuron',
    tokenize = 'unicode61 remove_diacritics 2',
    prefix = '2 3'
);

CREATE TRIGGER notes_added AFTER INSERT ON notes BEGIN
    INSERT INTO note_texts (rowid, name, note) VALUES (new.neuron, new.name, new.note);
END;

CREATE TRIGGER notes_changed AFTER UPDATE ON notes BEGIN
    INSERT INTO note_texts (note_texts, rowid, name, note) VALUES ('delete', old.neuron, old.name, old.note);
    INSERT INTO note_texts (rowid, name, note) VALUES (new.neuron, new.name, new.note);
END;

-- migration 2: lists
CREATE TABLE lists (
    list TEXT NOT NULL,
    neuron INTEGER NOT NULL,
    held INTEGER NOT NULL CHECK (held IN (0, 1)),
    changed TEXT NOT NULL,
    PRIMARY KEY (list, neuron)
) STRICT, WITHOUT ROWID;

CREATE INDEX lists_by_neuron ON lists (neuron);
