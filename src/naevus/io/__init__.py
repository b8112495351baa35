"""Files, tables, threads and progress reports."""
