#!/bin/sh
# nginx does not read resolv.conf by itself.
set -e
sed -n 's/^nameserver \(.*\)/resolver \1 valid=5s;/p' /etc/resolv.conf | head -n 1 > /tmp/resolver.conf
exec /usr/sbin/nginx -g 'daemon off;'
