"""``python -m conservbench``."""

from conservbench.cli import main

if __name__ == "__main__":
    main()
