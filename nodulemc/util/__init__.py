"""Files, tables, processes and words: helpers that all parts use."""
