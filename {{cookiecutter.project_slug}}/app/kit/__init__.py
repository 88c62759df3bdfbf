"""What is not about the product: database, sessions, pages, errors, routing, server."""
