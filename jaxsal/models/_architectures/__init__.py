"""Networks, one file an architecture, and the table of their names."""
