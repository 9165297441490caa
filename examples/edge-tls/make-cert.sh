#!/bin/sh
# Makes tls/cert.pem and tls/key.pem for localhost, signed by itself: to try things, not to serve with.
set -eu
cd "$(dirname "$0")"
mkdir -p tls
umask 077
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
    -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
    -keyout tls/key.pem.new -out tls/cert.pem.new 2>/dev/null
mv tls/key.pem.new tls/key.pem
mv tls/cert.pem.new tls/cert.pem
