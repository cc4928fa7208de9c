package process

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Beside starts this very program again with another argv, as the leader of a group
// of its own, for a part of proxyd that is to outlive it. It is nobody's generation:
// no Driver takes it for an orphan of one. files become its descriptors, and stay
// the caller's. reap kills it, where it
// has not ended, and must be called once proxyd has no more use for it.
func Beside(argv, env []string, files []uintptr) (reap func(), err error) {
	pid, pidfd, err := children.fork(argv, env, files)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	return func() {
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		children.reap(pid)
		unix.Close(pidfd)
	}, nil
}
