"""The container's entry point: `python -m trainer` as a file, which a launcher can name."""

from trainer.__main__ import main

if __name__ == "__main__":
    main()
