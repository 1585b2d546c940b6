"""From public data sets' files to what training reads."""
