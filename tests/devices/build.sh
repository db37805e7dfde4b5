#!/usr/bin/env bash
# Makes what the test devices run on: a Debian 12 arm64 userland, the runtimes' aarch64 wheels, and an emulator for it.
#   build.sh FOLDER
# Takes half a minute and 600 MB. Needs root, apt and pip; nothing is installed on this machine, packages are unpacked in FOLDER.
set -euo pipefail
lab=${1:?folder} root=${1:?folder}/pi tools=$1/tools
rm -rf "$root" "$tools"
mkdir -p "$lab/debs" "$tools"

cd "$lab/debs"
for name in qemu-user-static mmdebstrap; do
    compgen -G "${name}_*.deb" >/dev/null || apt-get download -qq "$name" 2>/dev/null || {
        apt-get update -qq
        apt-get download -qq "$name"
    }
    dpkg -x "${name}"_*.deb "$tools"
done

# Two trees of wheels, put there by this machine's pip, since tflite-runtime 2.14 needs numpy 1.
options=(--quiet --no-compile --only-binary=:all: --python-version 3.11 --implementation cp)
for abi in cp311 abi3 none; do options+=(--abi "$abi"); done
for version in 36 35 34 31 28 27 24 17; do options+=(--platform "manylinux_2_${version}_aarch64"); done
options+=(--platform manylinux2014_aarch64)
wheels() { "${PYTHON:-python3}" -m pip --disable-pip-version-check install "${options[@]}" --target "$lab/wheels/$1" "${@:2}" 2>"$lab/pip-$1.log"; }
rm -rf "$lab/wheels"
wheels edge 'ai-edge-litert==2.3.*' 'onnxruntime>=1.31,<2' 'openvino>=2026.4,<2027' 'numpy>=2,<2.6' pillow &
{ wheels edge-tflite 'tflite-runtime==2.14.*' 'numpy<2' || { cat "$lab"/pip-*.log; exit 1; } >&2; }

# --variant=extract runs no maintainer scripts, so nothing is emulated here (10 s instead of 5 minutes).
mirror=$(apt-get indextargets --format '$(SITE)' 'Codename: bookworm' 'Created-By: Packages' | grep -m 1 /debian || true)
packages=base-files,base-passwd,bash,dash,fish,coreutils,libc-bin,sed,grep,mawk,findutils,tar,gzip,util-linux,procps,hostname
packages+=,login,passwd,openssh-server,openssh-sftp-server,python3,ca-certificates,libgomp1,libstdc++6
"$tools/usr/bin/mmdebstrap" --quiet --mode=root --variant=extract --architectures=arm64 --skip=check/qemu \
    --keyring=/usr/share/keyrings/debian-archive-keyring.gpg --include="$packages" \
    bookworm "$root" "${mirror:-http://deb.debian.org/debian}"
wait $! || { cat "$lab"/pip-*.log; exit 1; } >&2
mkdir -p "$root/opt" "$root/usr/local/bin"
mv "$lab"/wheels/* "$root/opt/"

cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
# pi; anna, another user of the same board; fish, with another login shell; bare, without Python in the path.
printf '%s\n' 'sshd:*:100:65534::/run/sshd:/usr/sbin/nologin' pi:*:1000:1000::/home/pi:/bin/bash \
    'anna:*:1001:1001::/home/anna:/bin/dash' 'fish:*:1002:1002::/home/fish:/usr/bin/fish' \
    'bare:*:1003:1003::/home/bare:/bin/bash' >>"$root/etc/passwd"
printf '%s\n' 'pi:x:1000:' 'anna:x:1001:' 'fish:x:1002:' 'bare:x:1003:' >>"$root/etc/group"
echo raspberrypi >"$root/etc/hostname"
mkdir -p "$root/opt/bare" "$root/mnt/small"
for name in sh bash env cat kill; do ln -s "/bin/$name" "$root/opt/bare/$name"; done

# A stand-in for the firmware's tool; tests write its files to provoke heat and throttling.
cat >"$root/usr/bin/vcgencmd" <<'TOOL'
#!/bin/sh
state=/run/edgekd
case "$1" in
measure_temp) echo "temp=$(cat $state/temp 2>/dev/null || echo 48.2)'C" ;;
get_throttled) echo "throttled=$(cat $state/throttled 2>/dev/null || echo 0x0)" ;;
measure_clock) echo "frequency(48)=$(cat $state/clock 2>/dev/null || echo 1800457088)" ;;
measure_volts) echo "volt=0.8600V" ;;
*) echo 'error=1 error_msg="Command not registered"'; exit 255 ;;
esac
TOOL
chmod 755 "$root/usr/bin/vcgencmd"

# python3 has /opt/edge; python3-tflite the old runtime; python3-trap the old runtime beside a numpy that it does not work with.
mkdir "$root/opt/edge-trap"
cd "$root/opt/edge-trap"
for path in ../edge-tflite/tflite_runtime* ../edge/numpy*; do ln -s "$path" .; done
for tree in tflite trap; do
    printf '#!/bin/sh\nPYTHONPATH=/opt/edge-%s exec /usr/bin/python3 "$@"\n' $tree >"$root/usr/local/bin/python3-$tree"
    chmod 755 "$root/usr/local/bin/python3-$tree"
done

# The devices' users cannot write there, and an emulator would compile all of it anew for every program that starts.
"${PYTHON:-python3}" - "$root" <<'CODE'
import compileall, pathlib, sys
if sys.version_info[:2] == (3, 11):  # as on the devices
    for folder in ("usr/lib/python3.11", "opt/edge", "opt/edge-tflite"):
        compileall.compile_dir(pathlib.Path(sys.argv[1]) / folder, quiet=2, workers=0)
CODE
touch "$lab/made"
