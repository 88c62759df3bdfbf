"""The proof of the template: render it, read the render, run the render."""
