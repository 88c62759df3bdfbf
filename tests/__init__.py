"""The tests of the template: they render it, and check and run the renders."""
