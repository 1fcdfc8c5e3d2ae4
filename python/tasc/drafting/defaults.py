"""Defaults of drafting, apart from the code so that the command line reads them without numpy."""

DEFAULT_SLOPE = 0.02
"""Cost of one more drafted token at batch 1, in plain steps, where nothing is known."""

MAX_DRAFT = 64
"""Longest draft, unless told otherwise."""

MAX_SALTS = 64
"""Most salts of an index whose drafters are kept, unless told otherwise."""

MEMORY_BYTES = 256 << 20
"""Largest index file that is read into memory, unless told otherwise. A larger one stays mapped."""
