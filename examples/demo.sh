#!/bin/sh
# The demo behind `make demo`: detect this host, resolve and fetch a package from examples/mirror, a small
# signed mirror in this checkout. Needs no network.
#
# The demo keeps its store and its configuration below demo-out, so that it neither reads nor changes yours.
# CACHEFETCH names the command to run (default: the one in PATH), DEMO_OUT another directory than demo-out.
set -eu
cd "$(dirname "$0")/.."

command=${CACHEFETCH:-cachefetch}
out=${DEMO_OUT:-demo-out}
spec=py-multidict@6.1.0
mkdir -p "$out"
home=$(cd "$out" && pwd)/.home
export XDG_CACHE_HOME="$home/cache" XDG_CONFIG_HOME="$home/config"
export XDG_DATA_HOME="$home/data" XDG_STATE_HOME="$home/state"
for name in $(env | sed -n 's/^\(CACHEFETCH_[A-Za-z0-9_]*\)=.*/\1/p'); do
    unset "$name" # settings of yours would change what the demo shows
done

# Show the command as a user would type it, then run it.
run() {
    printf '\n$ cachefetch %s\n' "$*"
    "$command" "$@"
}

fetch() {
    run fetch "$spec" -m examples/mirror --key examples/mirror.pub.asc --to "$out" "$@"
}

run host
status=0
run resolve "$spec" -m examples/mirror || status=$?

case $status in
0)
    fetch
    ;;
3)
    printf '\nThe small example mirror has no binary that runs on this host: see the reasons above.\n'
    printf 'That is a full answer. The fetch is shown for another host, a Debian 12 machine:\n'
    fetch --platform linux --os debian12 --target x86_64_v3 --libc glibc@2.36
    ;;
*)
    printf '\ndemo: cachefetch resolve failed with exit code %s\n' "$status" >&2
    exit "$status"
    ;;
esac

printf '\nThe verified files are in %s:\n' "$out"
found=0
for file in "$out"/*.spack; do
    [ -f "$file" ] || continue
    found=$((found + 1))
    printf '  %s\n' "$file"
done
if [ "$found" -eq 0 ]; then
    printf 'demo: fetch said it was done, but there is no file in %s\n' "$out" >&2
    exit 1
fi
