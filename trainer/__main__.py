"""`python -m trainer`, and what the container's entry point and the installed command run."""

from trainer.runtime import signals

signals.install()  # before heavy imports: as PID 1 a process without a handler ignores SIGTERM

from trainer.cli import main as main  # noqa: E402  (after the handler, on purpose)

if __name__ == "__main__":
    main()
