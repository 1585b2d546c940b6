"""Reading a CT: one module for each format, and the checks that all of them share."""
