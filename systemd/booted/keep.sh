# Run in a mount namespace of its own, as: sh keep.sh DIR. Holds the machine's
# disk, a tmpfs at DIR that nobody else sees, until standard input ends: a later
# boot finds what an earlier one wrote. What mount(8) notes in /run stays here
# as well.
set -eu
dir=$1
mount -n --make-rprivate /
mount -n -t tmpfs -o mode=0755 run /run
mount -n -t tmpfs -o mode=0755 booted "$dir"
mkdir "$dir/upper" "$dir/work" "$dir/root" "$dir/host" /run/cgroup
echo kept
exec cat >/dev/null
