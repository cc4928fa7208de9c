package systemd

import "time"

// resultGrace is for the result of a start job that is no more: it comes by
// itself, beside the answers to calls. One that was lost is not waited for long.
const resultGrace = time.Second

// unexplained tells whether s is the end of a run of which systemd remembers
// nothing, so that only the result of its start job says why.
func (u *Unit) unexplained(s state) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return !s.running() && !s.job && (s.invocation == "" || s.invocation == u.before.invocation)
}

// hear waits for the result of the start job, and gives what is left to wait for.
func (u *Unit) hear(job <-chan string) <-chan string {
	select {
	case r := <-job:
		u.heard(r)
		return nil
	case <-time.After(resultGrace):
	case <-u.driver.life.Done():
	}
	return job
}

// heard keeps the result of the start job.
func (u *Unit) heard(result string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.result = result
}
