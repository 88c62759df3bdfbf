"""What is not about the product: database, repositories, pages, errors, routing, server."""
