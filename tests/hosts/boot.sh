#!/bin/sh
# boot.sh DISK NAME: process 1 of one host. A disk of its own in memory, over the machine's directories, so that
# whatever is done to the host is gone with it; then it waits, and collects the dead.
set -eu
disk=$1 name=$2
hostname "$name"
mount -t tmpfs -o mode=0755,size=256m certfleet-host "$disk"
for place in etc root home usr/local var; do
	mkdir -p "$disk/$place/upper" "$disk/$place/work"
	mount -t overlay -o "lowerdir=/$place,upperdir=$disk/$place/upper,workdir=$disk/$place/work" overlay "/$place"
done
mount -t tmpfs -o mode=0755 run /run
mkdir /run/sshd
printf 'ready\n'
exec >/dev/null
while :; do sleep 3600; done
