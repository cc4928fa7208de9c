package proxy

import "golang.org/x/sys/unix"

const (
	sparePipes  = 4        // empty pipes a loop keeps for the next
	spareBytes  = 1 << 20  // empty buffers a loop keeps for the next
	muchHeld    = 32 << 20 // from here on reads are small and nothing is spliced, so that many slow readers cost little each
	smallBuffer = 4 << 10
)

// lend is what a blocked direction has borrowed: a pipe or a buffer with the
// bytes that are stuck in it.
type lend struct {
	buf  []byte // nil: the pipe
	off  int
	n    int
	pipe pipe
	next int32 // the next free one
}

// store lends room to directions that are blocked, and only to them.
type store struct {
	lends    []lend
	freeLend int32
	buffers  [7][][]byte // spare ones of 4, 8, 16, 32, 64, 128, 256 KiB
	spare    int         // bytes of them
	held     int         // bytes of lent buffers
	pipe     pipe        // the loop's own, empty; r is -1 if there is none
	pipes    []pipe      // spare ones, empty
	lentPipe int
	maxPipes int // that may be lent at a time
	sys      kernel
}

func newStore(sys kernel) store {
	return store{sys: sys, freeLend: -1, pipe: pipe{-1, -1}, maxPipes: 64}
}

// room is the buffer for the next read.
func (p *pump) room(src *side) []byte {
	switch {
	case p.store.held > muchHeld:
		return p.buf[:smallBuffer]
	case !src.is(stream):
		return p.buf
	case p.big == nil:
		p.big = make([]byte, streamSize)
	}
	return p.big
}

func (st *store) lend() int32 {
	if st.freeLend < 0 {
		st.lends = append(st.lends, lend{})
		return int32(len(st.lends) - 1)
	}
	i := st.freeLend
	st.freeLend = st.lends[i].next
	return i
}

func class(n int) (int, int) {
	i, size := 0, smallBuffer
	for size < n {
		i, size = i+1, size*2
	}
	return i, size
}

func (st *store) buffer(n int) []byte {
	i, size := class(n)
	st.held += size
	if k := len(st.buffers[i]); k > 0 {
		b := st.buffers[i][k-1]
		st.buffers[i] = st.buffers[i][:k-1]
		st.spare -= size
		return b
	}
	return make([]byte, size)
}

// hold keeps a copy of b as the stuck bytes of a side.
func (st *store) hold(s *side, b []byte) {
	buf := st.buffer(len(b))
	copy(buf, b)
	s.held = st.lend()
	st.lends[s.held] = lend{buf: buf, n: len(b)}
}

// withPipe sees to it that the loop has an empty pipe.
func (st *store) withPipe() bool {
	if st.pipe.r >= 0 {
		return true
	}
	if k := len(st.pipes); k > 0 {
		st.pipe, st.pipes = st.pipes[k-1], st.pipes[:k-1]
		return true
	}
	p, errno := st.sys.openPipe()
	if errno != 0 {
		return false
	}
	st.pipe = p
	return true
}

// holdPipe lends the loop's pipe with n stuck bytes. Where too many are lent
// already the bytes are moved to a buffer, and the pipe stays.
func (st *store) holdPipe(s *side, n int) {
	if st.lentPipe < st.maxPipes {
		s.held = st.lend()
		st.lends[s.held] = lend{pipe: st.pipe, n: n}
		st.lentPipe++
		st.pipe = pipe{-1, -1}
		return
	}
	buf := st.buffer(n)
	for got := 0; got < n; {
		m, errno := st.sys.drain(st.pipe.r, buf[got:n])
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 || m == 0 {
			panic("proxy: a pipe lost bytes: " + errno.Error())
		}
		got += m
	}
	s.held = st.lend()
	st.lends[s.held] = lend{buf: buf, n: n}
}

// dropPipe throws the loop's pipe away with what is in it.
func (st *store) dropPipe() {
	st.sys.closePipe(st.pipe)
	st.pipe = pipe{-1, -1}
}

// release takes back what a side has borrowed, stuck bytes and all.
func (st *store) release(s *side) {
	l := &st.lends[s.held]
	if l.buf != nil {
		i, size := class(len(l.buf))
		st.held -= size
		if st.spare+size <= spareBytes {
			st.spare += size
			st.buffers[i] = append(st.buffers[i], l.buf)
		}
	} else {
		st.lentPipe--
		if l.n == 0 && len(st.pipes) < sparePipes {
			st.pipes = append(st.pipes, l.pipe)
		} else {
			st.sys.closePipe(l.pipe)
		}
	}
	*l = lend{next: st.freeLend}
	st.freeLend, s.held = s.held, -1
}

// empty closes the pipes that a loop keeps.
func (st *store) empty() {
	for _, p := range st.pipes {
		st.sys.closePipe(p)
	}
	st.pipes = nil
	if st.pipe.r >= 0 {
		st.dropPipe()
	}
}
