"""Items: one table and nothing around it, to be measured."""
