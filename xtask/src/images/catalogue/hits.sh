#!/bin/sh
# Counts a call in redis and answers with the count.
answer=$(printf 'INCR hits\r\nQUIT\r\n' | nc -w 5 "${REDIS_HOST:-redis-leader}" 6379)
hits=$(printf '%s' "$answer" | sed -n 's/^:\([0-9]*\).*/\1/p')
if [ -z "$hits" ]; then
    printf 'Status: 503 Service Unavailable\r\nContent-Type: text/plain\r\n\r\nredis does not answer\n'
    exit 0
fi
body=$(printf '{"version":"VERSION","hits":%s,"pod":"%s"}' "$hits" "$(hostname)")
printf 'Status: 200 OK\r\nContent-Type: application/json\r\nContent-Length: %s\r\n\r\n%s' "${#body}" "$body"
