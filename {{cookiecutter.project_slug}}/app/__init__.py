"""The service: start at ``app.main.create_app``."""
