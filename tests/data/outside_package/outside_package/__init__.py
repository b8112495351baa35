"""Own parts for naevus, as a package that knows nothing of its source."""
