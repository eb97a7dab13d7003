"""``python -m exca_like``: the command ``exca-like``."""

from exca_like.cli import main

if __name__ == "__main__":
    main()
