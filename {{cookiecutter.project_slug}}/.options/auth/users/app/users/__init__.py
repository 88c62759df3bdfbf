"""Users, their tokens and their API keys."""
