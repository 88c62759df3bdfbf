"""Users, their tokens and their API keys, and who may pass."""
