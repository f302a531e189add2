#!/bin/sh
# The first process of a guest: mounts, modules, the tests, and their results on the serial line.
/bin/busybox mkdir -p /busybox
/bin/busybox --install -s /busybox
export PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin:/busybox HOME=/ TMPDIR=/tmp RUST_BACKTRACE=0
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
echo 1 > /proc/sys/kernel/panic
for module in $(cat /modules/order); do
    insmod "/modules/$module.ko" || echo "no module $module"
done
ip link set lo up
echo "KERNEL $(uname -r)"
result=0
if [ -s /filters ]; then
    # Told apart from the rest, for what it prints: how much the verifier walked.
    /tests --nocapture --test-threads 1 packet::loads:: || result=1
    LB_INPUTS=20000 /tests --test-threads 2 --skip packet::loads:: $(cat /filters) || result=1
fi
# Of hundreds of connections through three nodes some would wait for this processor for seconds.
LB_DSR_FLOWS=20 sh /chaos || result=1
[ $result = 0 ] && echo "RESULT ok" || echo "RESULT failed"
# Which ends the emulator; a guest that was suspended cannot switch itself off any more.
reboot -f
