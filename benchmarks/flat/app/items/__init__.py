"""Items: a single table, for the benchmark."""
