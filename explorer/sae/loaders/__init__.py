"""One loader for each format of SAE checkpoints; `explorer.sae.formats` knows them all.

A loader is a module with `NAME` (of the project), `HINTS` (names of the hints it understands),
`claims(found)` (whether what was found is of its format: cheap, by names and keys) and `load(found, hints)`,
which folds the project's formulas into the form of `explorer.sae.model` and raises SAEError for what does not
add up.
"""
