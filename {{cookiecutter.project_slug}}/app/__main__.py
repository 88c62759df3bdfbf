"""``python -m app``: serve, as in production; with ``--reload`` as in development."""

from app.kit.server import main
from app.settings import load_settings

if __name__ == "__main__":
    main("app.main:create_process_app", load_settings)
