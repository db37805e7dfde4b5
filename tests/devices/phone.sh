#!/usr/bin/env bash
# A test phone: the device side of adb (adbd.py) on 127.0.0.1, its shells in the aarch64 root of the test Pi, in a mount
# namespace that ends with it. /data is a small tmpfs of its own. Not Android: no bionic, no toybox; getprop and dumpsys are
# stand-ins that read files of STATE (thermal, battery). Its times are EMULATED.
#   phone.sh ROOT PORT STATE      needs root and the binfmt handler that the Pi's script registers
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
[ -n "${INSIDE:-}" ] || INSIDE=1 exec unshare -m --propagation private bash "$HERE/phone.sh" "$@"
R=$1 PORT=$2 STATE=$3
mkdir -p "$R/data" "$R/system/bin" "$R/run" "$STATE"
C=$(mktemp -d); mount -t tmpfs tmpfs "$C"; mkdir "$C/bin"
mount -t proc proc "$R/proc"
# With the host's x86 /proc/cpuinfo and /sys, the cpuinfo library in ai-edge-litert crashes: a phone's own.
N=$(nproc)
for ((i = 0; i < N; i++)); do
  printf 'processor\t: %d\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: 0xd0b\nCPU revision\t: 1\n\n' "$i"
done >"$C/cpuinfo"
mount --bind "$C/cpuinfo" "$R/proc/cpuinfo"
mount -t tmpfs tmpfs "$R/sys"
mkdir -p "$R/sys/devices/system" "$R/sys/class/thermal/thermal_zone0"
cp -r --no-preserve=all /sys/devices/system/cpu /sys/devices/system/node "$R/sys/devices/system/" 2>/dev/null || true
for ((i = 0; i < N; i++)); do
  d=$R/sys/devices/system/cpu/cpu$i/cpufreq
  mkdir -p "$d"
  echo schedutil >"$d/scaling_governor"
  for k in scaling_cur_freq scaling_max_freq cpuinfo_max_freq; do echo 2400000 >"$d/$k"; done
done
echo 38200 >"$R/sys/class/thermal/thermal_zone0/temp"
echo cpu-thermal >"$R/sys/class/thermal/thermal_zone0/type"
mount -t tmpfs -o mode=755 tmpfs "$R/dev"
for n in null zero full random urandom tty; do touch "$R/dev/$n"; mount --bind "/dev/$n" "$R/dev/$n"; done
mkdir "$R/dev/shm"; mount -t tmpfs tmpfs "$R/dev/shm"; ln -s /proc/self/fd "$R/dev/fd"
mount -t tmpfs -o size=256m,mode=755 tmpfs "$R/data"
mkdir -p "$R/data/local/tmp" "$R/data/small"
mount -t tmpfs -o size=64k,mode=777 tmpfs "$R/data/small"
chown 2000:2000 "$R/data/local/tmp"
mount -t tmpfs -o mode=755 tmpfs "$R/run"; mkdir "$R/run/phone"; mount --bind "$STATE" "$R/run/phone"
cat >"$C/bin/getprop" <<'S'
#!/bin/sh
case $1 in
ro.product.manufacturer) echo edgekd;; ro.product.model) echo Test Phone;; ro.build.version.release) echo 14;;
ro.build.version.sdk) echo 34;; ro.product.cpu.abi) echo arm64-v8a;; ro.soc.model) echo QEMU;; *) echo;;
esac
S
cat >"$C/bin/dumpsys" <<'S'
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
chmod 755 "$C/bin/"*
mount --bind "$C/bin" "$R/system/bin"
PYTHON=${PYTHON:-$(command -v python3)}
export QEMU_CPU=${PHONE_CPU:-cortex-a76} PATH=/system/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONPATH=/opt/edge LC_ALL=C
exec "$PYTHON" "$HERE/adbd.py" "$PORT" "$R" "$STATE"
