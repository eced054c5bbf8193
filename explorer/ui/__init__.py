"""The page: one file per tab, pure drawing functions, layout. Knows the session; nothing of torch or SQL."""
