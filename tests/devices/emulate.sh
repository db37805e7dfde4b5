#!/usr/bin/env bash
# Lets aarch64 programs run in this user namespace, then runs a program.
#   emulate.sh LAB PROGRAM...
set -euo pipefail
lab=$1
shift
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
# As one write; F: the emulator is opened now, so it need not be in the userland.
printf '%s' ":aarch64:M::$magic:$mask:$lab/tools/usr/bin/qemu-aarch64-static:OCF" >/proc/sys/fs/binfmt_misc/register
exec "$@"
