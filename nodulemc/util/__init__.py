"""Files, tables, processes and words: what all parts use and none owns."""
