#!/bin/sh
# gcc that instruments SQLite and nothing else: CC=…/tests/fuzz/cc.sh cargo fuzz …
case "$*" in
  *sqlite3.c*) exec gcc -fsanitize-coverage=trace-pc,trace-cmp ${DORMOUSE_FUZZ_CFLAGS--fsanitize=address} "$@" ;;
  *) exec gcc "$@" ;;
esac
