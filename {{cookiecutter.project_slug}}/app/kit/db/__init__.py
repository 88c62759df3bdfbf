"""The database: driver, engines, sessions, models and the repository base."""
