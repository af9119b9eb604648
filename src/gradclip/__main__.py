"""``python -m gradclip`` is the command ``gradclip``."""

from gradclip.cli import app

if __name__ == "__main__":
    app(prog_name="gradclip")
