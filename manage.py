#!/usr/bin/env python
"""Gantry's command line: `manage.py up` starts everything, `manage.py help` lists the rest."""

import os
import sys


def main() -> None:
    """Run one management command."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gantry.settings")
    from django.core.management import execute_from_command_line

    from gantry.env import EnvironmentInvalid

    try:
        execute_from_command_line(sys.argv)
    except EnvironmentInvalid as exc:
        sys.exit(str(exc))


if __name__ == "__main__":
    main()
