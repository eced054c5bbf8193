-- The tables of notes.sqlite. FORMAT.md says what they mean; a test keeps the two alike.
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
