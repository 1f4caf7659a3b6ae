#!/bin/sh
# Waits until the Pod has an address, then becomes any server: `tcp_server.sh ADDRESS COMMAND...`. Needs grep, and no `ip`.
set -eu
address=$1
shift
trap 'exit 0' TERM
until grep -Fw -A1 -e "-- $address" /proc/net/fib_trie | grep -q '/32 host LOCAL'; do
    sleep 0.2
done
exec "$@"
