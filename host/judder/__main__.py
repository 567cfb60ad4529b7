"""The `judder` command. Says what to install when only the decoder is there."""

import sys


def main() -> None:
    """Run the command line, or explain what it needs."""
    try:
        from judder import cli
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich", "aiohttp", "pydantic", "pydantic_settings"}:
            raise
        sys.exit(f"judder: only the decoder is installed ({error.name} is missing); run: pip install 'judder[app]'")
    cli.app()


if __name__ == "__main__":
    main()
