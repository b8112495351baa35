"""Files, tables, threads: what naevus asks of the machine."""
