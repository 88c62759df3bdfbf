"""Everything that is not about the product: database, repositories, errors, routing, server."""
