#!/bin/sh
# `web`, `worker` or `scheduler` runs that part; anything else is a command of manage.py (`status`, `migrate`, `createsuperuser` …).
set -eu

case "${1:-web}" in
    web | worker | scheduler) exec python manage.py up --role "${1:-web}" ;;
    *) exec python manage.py "$@" ;;
esac
