"""Random SAEs of other projects' own code, held against what `load_sae` makes of their files.

One module for each project, which imports the project's package only when asked to make an SAE. See
`python -m explorer.evals.peers --help`.
"""
