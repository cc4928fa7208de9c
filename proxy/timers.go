package proxy

// what a timer is for
type purpose uint8

const (
	dialAgain   purpose = iota // the next try to connect
	pollUnsent                 // look whether a reset may be sent
	moveAgain                  // the kernel had no memory
	acceptAgain                // accepting failed
	hearAgain                  // look for a PROXY header
	hearNoMore                 // it did not come in time
)

// timer is a thing to do at a time. Timers are never taken back: one whose
// connection has ended no longer finds it.
type timer struct {
	at   int64
	key  key
	what purpose
}

// timers is a binary heap by time. Only rare things are in it: nothing that
// each connection or each request does.
type timers []timer

func (t *timers) add(x timer) {
	h := append(*t, x)
	i := len(h) - 1
	for i > 0 && h[(i-1)/2].at > x.at {
		h[i] = h[(i-1)/2]
		i = (i - 1) / 2
	}
	h[i] = x
	*t = h
}

// due takes the first timer off if its time has come.
func (t *timers) due(now int64) (timer, bool) {
	h := *t
	if len(h) == 0 || h[0].at > now {
		return timer{}, false
	}
	first, last := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	for i := 0; len(h) > 0; {
		k := 2*i + 1
		if k+1 < len(h) && h[k+1].at < h[k].at {
			k++
		}
		if k >= len(h) || h[k].at >= last.at {
			h[i] = last
			break
		}
		h[i] = h[k]
		i = k
	}
	*t = h
	return first, true
}
