"""Every environment variable of the service, read once when the process starts."""

from app.kit.config import CONFIG, ServerSettings, read
from app.kit.db.driver import DriverSettings
from app.users.settings import UserSettings


class Settings(ServerSettings, DriverSettings, UserSettings):
    """The whole configuration, in one flat class."""

    model_config = CONFIG


def load_settings() -> Settings:
    """Read the environment and ``.env``.

    Raises:
        SystemExit: a variable is missing or unreadable.
    """
    return read(Settings)
