#!/bin/sh
exec /usr/sbin/standin-server entrypoint
