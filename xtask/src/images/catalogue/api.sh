#!/bin/sh
# As process 1, httpd would ignore SIGTERM; this shell does not.
httpd -f -p 8080 -h /srv &
trap 'kill $!; exit 0' TERM INT
wait $!
