"""The commands of `python -m index`: one module each, with `add_arguments(parser)` and `run(args) -> int`."""
