# Run as PID 1 of new namespaces, as: sh init.sh DIR UNIT. Makes what systemd
# expects of a container's root (systemd.io/CONTAINER_INTERFACE) and becomes
# systemd.
set -eu
dir=$1 unit=$2 root=$1/root
m() { mount -n "$@"; }

# In the numbers of whoever booted it, while its /proc is still here.
read -r pid rest </proc/self/stat
echo "pid $pid"

m --make-rprivate /
m -t overlay -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" overlay "$root"
m -t proc -o nosuid,nodev,noexec proc "$root/proc"
m -t sysfs -o nosuid,nodev,noexec,ro sysfs "$root/sys"
m -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"
m -t tmpfs -o nosuid,mode=0755 run "$root/run"
m -t tmpfs -o nosuid,nodev,mode=1777 tmp "$root/tmp"
m -t tmpfs -o nosuid,mode=0755 dev "$root/dev"

# The kernel's settings belong to the machine, but for those of the network.
m --bind "$root/proc/sys/net" "$root/proc/sys/net"
m --rbind "$root/proc/sys" "$root/proc/sys"
m -o remount,bind,ro "$root/proc/sys"
for file in sysrq-trigger bus irq; do
	[ ! -e "$root/proc/$file" ] || m -o bind,ro "$root/proc/$file" "$root/proc/$file"
done

for node in null zero full random urandom tty; do
	: >"$root/dev/$node"
	m --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/pts" "$root/dev/shm" "$root/run/host"
m -t devpts -o nosuid,noexec,newinstance,ptmxmode=0666,mode=0620 devpts "$root/dev/pts"
m -t tmpfs -o nosuid,nodev,mode=1777 shm "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"
m --bind "$dir/host" "$root/run/host"

# What this machine was told to run, mount and log is not for the new one.
if [ ! -e "$dir/prepared" ]; then
	etc=$root/etc/systemd/system
	rm -rf "$root/etc/systemd/system" "$root/etc/systemd/user" "$root/var/log/journal"
	mkdir -p "$root/etc/systemd/system" "$root/etc/systemd/user" "$root/var/log/journal"
	: >"$root/etc/fstab"
	tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
	for name in systemd-sysctl.service systemd-modules-load.service modprobe@.service \
		systemd-udevd.service systemd-hwdb-update.service systemd-firstboot.service \
		dev-hugepages.mount dev-mqueue.mount proc-sys-fs-binfmt_misc.automount \
		sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount \
		sys-fs-fuse-connections.mount systemd-journald-audit.socket; do
		ln -s /dev/null "$etc/$name"
	done
	: >"$dir/prepared"
fi

mkdir "$root/run/old"
cd "$root"
pivot_root . run/old
umount -n -l /run/old
rmdir /run/old

exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	container=booted NOTIFY_SOCKET=/run/host/notify \
	setpriv --bounding-set=-sys_module,-sys_time,-sys_rawio,-syslog,-sys_pacct \
	/lib/systemd/systemd --system --unit="$unit" --log-target=journal --show-status=0 </dev/null
