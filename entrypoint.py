"""The container's entry point; everything is in `trainer`."""

from trainer.runtime import signals

signals.install()  # before heavy imports: as PID 1 a process without a handler ignores SIGTERM

from trainer.cli import main  # noqa: E402  (after the handler, on purpose)

if __name__ == "__main__":
    main()
