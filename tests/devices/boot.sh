#!/usr/bin/env bash
# Starts a test device: the mounts of a Raspberry Pi, then a program in its userland. Runs in namespaces of its own (lab.py).
#   boot.sh LAB STATE CPU PROGRAM...    STATE: the device's folder here; CPU: cortex-a72 (Pi 4) or cortex-a76 (Pi 5)
set -euo pipefail
lab=$1 state=$2 cpu=$3 root=$1/pi
shift 3

case $cpu in
cortex-a72) part=0xd08 variant=0x0 revision=3 midr=0x00000000410fd083 khz=1800000 board='Raspberry Pi 4 Model B Rev 1.5' code=c03115
    features='fp asimd evtstrm crc32 cpuid' ;;
cortex-a76) part=0xd0b variant=0x4 revision=1 midr=0x00000000414fd0b1 khz=2400000 board='Raspberry Pi 5 Model B Rev 1.0' code=c04170
    features='fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp' ;;
esac
cores=$(nproc)

mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir -p "$root/run/sshd" "$root/run/edgekd"
cp "$state/sshd_config" "$state/host_key" "$root/run/"
chmod 600 "$root/run/host_key"
mount --bind "$state/home" "$root/home"
mount -t tmpfs -o mode=1777,size=2m tmpfs "$root/mnt/small"

# Of this machine's x86 CPU the library cpuinfo (in onnxruntime and ai-edge-litert) would crash.
for ((i = 0; i < cores; i++)); do
    printf 'processor\t: %d\nBogoMIPS\t: 108.00\nFeatures\t: %s\n' $i "$features"
    printf 'CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: %s\nCPU part\t: %s\nCPU revision\t: %d\n\n' $variant $part $revision
done >"$root/run/cpuinfo"
printf 'Revision\t: %s\nSerial\t\t: 100000000000beef\nModel\t\t: %s (edgekd test device, qemu-user)\n' $code "$board" >>"$root/run/cpuinfo"
mount --bind "$root/run/cpuinfo" "$root/proc/cpuinfo"

# The topology is this machine's (OpenVINO needs it whole); clocks and temperatures are made up, and a test may write them.
mount -t tmpfs tmpfs "$root/sys"
system=$root/sys/devices/system thermal=$root/sys/class/thermal/thermal_zone0 tree=$root/sys/firmware/devicetree/base
mkdir -p "$system" "$thermal" "$tree"
cp -r --no-preserve=all /sys/devices/system/cpu /sys/devices/system/node "$system/" 2>/dev/null || true
for ((i = 0; i < cores; i++)); do
    clock=$system/cpu/cpu$i/cpufreq
    mkdir -p "$clock" "$system/cpu/cpu$i/regs/identification"
    echo $midr >"$system/cpu/cpu$i/regs/identification/midr_el1"
    echo ondemand >"$clock/scaling_governor"
    echo 'conservative ondemand userspace powersave performance schedutil' >"$clock/scaling_available_governors"
    echo 600000 >"$clock/cpuinfo_min_freq"
    for name in scaling_cur_freq scaling_max_freq cpuinfo_max_freq; do echo $khz >"$clock/$name"; done
done
echo 48200 >"$thermal/temp"
echo cpu-thermal >"$thermal/type"
printf '%s\0' "$board" >"$tree/model"
chmod -R a+rwX "$root/run/edgekd" "$root/sys/class/thermal"

mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for name in null zero full random urandom tty; do
    touch "$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
mkdir -p "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
export QEMU_CPU=$cpu
exec chroot "$root" "$@"
