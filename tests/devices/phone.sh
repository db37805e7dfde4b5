#!/usr/bin/env bash
# Starts a test phone: its mounts, then the device side of adb (adbd.py) in the Pi's userland. Runs in namespaces of its own
# (lab.py), behind emulate.sh. Not Android: no bionic, no toybox; getprop and dumpsys are stand-ins that read files of STATE.
#   phone.sh LAB STATE PORT
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$1/pi state=$2 port=$3

mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir "$root/run/phone"
cp "$here/adbd.py" "$root/run/"
mount --bind "$state" "$root/run/phone"
for ((i = 0; i < $(nproc); i++)); do
    printf 'processor\t: %d\nFeatures\t: %s\n' $i 'fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp'
    printf 'CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: 0xd0b\nCPU revision\t: 1\n\n'
done >"$root/run/cpuinfo"
mount --bind "$root/run/cpuinfo" "$root/proc/cpuinfo"

mount -t tmpfs tmpfs "$root/sys"
system=$root/sys/devices/system
mkdir -p "$system"
cp -r --no-preserve=all /sys/devices/system/cpu /sys/devices/system/node "$system/" 2>/dev/null || true
for ((i = 0; i < $(nproc); i++)); do
    mkdir -p "$system/cpu/cpu$i/cpufreq"
    echo schedutil >"$system/cpu/cpu$i/cpufreq/scaling_governor"
    for name in scaling_cur_freq scaling_max_freq cpuinfo_max_freq; do echo 2400000 >"$system/cpu/cpu$i/cpufreq/$name"; done
done

mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for name in null zero full random urandom tty; do
    touch "$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
mkdir "$root/dev/shm"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
ln -s /proc/self/fd "$root/dev/fd"

# Android's folders; /data/small has hardly any room.
mkdir -p "$root/data" "$root/system"
mount -t tmpfs -o mode=755,size=256m tmpfs "$root/data"
mount -t tmpfs -o mode=755 tmpfs "$root/system"
mkdir -p "$root/data/local/tmp" "$root/data/small" "$root/system/bin"
chown 2000:2000 "$root/data/local/tmp"
mount -t tmpfs -o mode=777,size=64k tmpfs "$root/data/small"
cat >"$root/system/bin/getprop" <<'S'
#!/bin/sh
case $1 in
ro.product.manufacturer) echo edgekd;; ro.product.model) echo Test Phone;; ro.build.version.release) echo 14;;
ro.build.version.sdk) echo 34;; ro.product.cpu.abi) echo arm64-v8a;; ro.soc.model) echo QEMU;; *) echo;;
esac
S
cat >"$root/system/bin/dumpsys" <<'S'
#!/bin/sh
case $1 in
thermalservice) sed "s/@/$(cat /run/phone/thermal 2>/dev/null || echo 0)/" <<T
IsStatusOverride: false
ThermalEventListeners:
	callbacks: 2
ThermalStatusListeners:
	callbacks: 1
Thermal Status: @
Cached temperatures:
	Temperature{mValue=36.1, mType=3, mName=skin, mStatus=0}
HAL Ready: true
HAL connection:
	ThermalHAL 2.0 connected: yes
Current temperatures from HAL:
	Temperature{mValue=38.2, mType=0, mName=CPU0, mStatus=0}
	Temperature{mValue=39.4, mType=0, mName=CPU1, mStatus=0}
	Temperature{mValue=36.0, mType=3, mName=skin, mStatus=0}
T
;;
battery) cat /run/phone/battery 2>/dev/null || cat <<B
Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 500000
  status: 2
  health: 2
  present: true
  level: 81
  scale: 100
  voltage: 4123
  temperature: 291
  technology: Li-ion
B
;;
esac
S
chmod 755 "$root/system/bin/"*

exec env -i QEMU_CPU=cortex-a76 PATH=/system/bin:/usr/bin:/bin HOME=/ PYTHONPATH=/opt/edge LC_ALL=C.UTF-8 \
    "$(command -v chroot)" "$root" /usr/bin/python3 /run/adbd.py "$port" /run/phone
