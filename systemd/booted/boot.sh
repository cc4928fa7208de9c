# Run in the mount namespace of keep.sh, as: sh boot.sh DIR NAME UNIT INIT.
# Boots systemd once. Standard input is the power cord: when it ends, so does
# all of this, also when whoever held it was killed.
set -eu
dir=$1 name=$2 unit=$3 init=$4
own=$(sed -n 's/^0:://p' /proc/self/cgroup)
exec 3<&0

# Enter and leave make and remove a control group below our own, through a mount
# of our own: what is at /sys/fs/cgroup may be version 1, or read-only.
enter='mount -n -t cgroup2 cgroup2 "$1"; mkdir -p "$1$2/$3"; echo "$4" >"$1$2/$3/cgroup.procs"'
# The kernel may call a group busy for a moment after its last process was reaped.
leave='mount -n -t cgroup2 cgroup2 "$1"; tries=0
	until find "$1$2/$3" -depth -type d -exec rmdir {} + 2>"$1.said"; do
		[ $((tries += 1)) -lt 500 ] || { cat "$1.said" >&2; exit 1; }
		sleep 0.01
	done'

# The cgroup namespace begins in the group that its maker is in.
(
	exec 3<&-
	read -r pid rest </proc/self/stat
	unshare --mount sh -euc "$enter" sh /run/cgroup "$own" "$name" "$pid"
	exec unshare --mount --pid --net --uts --ipc --cgroup --fork --kill-child=KILL \
		sh -euc "$init" sh "$dir" "$unit"
) &
machine=$!

# To end PID 1 ends everything in its pid namespace before unshare is told.
(
	read -r _ <&3 && exit
	read -r first rest <"/proc/$machine/task/$machine/children" || first=
	kill -KILL ${first:-$machine}
) 2>/dev/null &
cord=$!
wait "$machine" 2>/dev/null || true
kill -KILL "$cord" 2>/dev/null || true
wait || true
exec unshare --mount sh -euc "$leave" sh /run/cgroup "$own" "$name"
