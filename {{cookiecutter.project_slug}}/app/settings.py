"""The settings of the service, read from the environment when a process starts."""

from app.kit.config import CONFIG, KitSettings, read
from app.users.option import UserSettings


class Settings(KitSettings, UserSettings):
    """The settings of the kit and of the features. Add your own here."""

    model_config = CONFIG


def load_settings() -> Settings:
    """Read the environment and ``.env``; raise ``SystemExit`` for a bad variable."""
    return read(Settings)
