package proxy

// The two sides of a connection. A direction is named by the side that its
// bytes come from: direction client is client to backend.
const (
	client  = 0
	backend = 1
)

// state is where a record is in its life.
type state uint8

const (
	unused     state = iota // in the slab's free list
	hearing                 // the client's PROXY header
	waiting                 // for the next try to connect
	connecting              // TCP, in progress
	relaying
)

// flags is what is known of one side.
type flags uint16

const (
	isTCP    flags = 1 << iota
	readable       // there may be bytes or an ending to read
	exhaust        // a short read does not prove that nothing is left
	ended          // everything was read, up to the end of the stream or an error
	failed         // reset, or not to be written any more: bytes for it are dropped
	shut           // we ended our sending half
	blocked        // takes no more until epoll says so
	armed          // epoll reports write edges
	gone           // a unix peer closed both halves
	stream         // its reads filled the buffer: splice
	plain          // do not splice
	fin            // the peer ended its stream in order: a short read was the last
	nagle          // TCP_NODELAY is not set yet
	written        // something was
	paced          // see local.go
)

// side is one socket of a connection.
type side struct {
	fd    int32
	held  int32 // the stuck bytes that came from this side: index in pump.lends, -1
	flags flags
}

func (s *side) is(f flags) bool { return s.flags&f != 0 }

// conn is the record of one client connection: flat, without pointers, so that
// an idle connection costs this record and its two sockets, and the garbage
// collector never looks at it. Only its own loop touches it.
type conn struct {
	side     [2]side
	index    int32 // its own place in the slab
	seq      int32 // rises at each reuse; never 0
	cell     int32 // which route counts it: index in loop.cells, -1
	prev     int32 // neighbours in the list of those that connect,
	next     int32 // or the next free record
	active   uint32
	due      int64 // waiting, connecting: when to give up; a reset: the next poll's delay
	state    state
	listener uint8
	tries    uint8
	late     uint16 // 1 + its place in pump.postponed, 0: not there
	queued   bool   // in pump.again
	headed   bool   // its client's PROXY header is still unread
	ending   bool   // waits until its bytes are acknowledged, then is reset
}

func (c *conn) key(s int) key { return key{c.index<<1 | int32(s), c.seq} }

const chunk = 512

// slab keeps records by index in chunks that never move and are never freed;
// what once was needed is reused.
type slab struct {
	chunks []*[chunk]conn
	free   int32
	live   int
}

func newSlab() slab { return slab{free: -1} }

func (s *slab) at(i int32) *conn { return &s.chunks[i/chunk][i%chunk] }

// take gives a record with a new sequence number and no sockets.
func (s *slab) take() *conn {
	if s.free < 0 {
		base := int32(len(s.chunks) * chunk)
		fresh := new([chunk]conn)
		s.chunks = append(s.chunks, fresh)
		for i := chunk - 1; i >= 0; i-- {
			fresh[i].index, fresh[i].next = base+int32(i), s.free
			s.free = base + int32(i)
		}
	}
	c := s.at(s.free)
	s.free = c.next
	seq := c.seq + 1
	if seq <= 0 {
		seq = 1
	}
	none := side{fd: -1, held: -1}
	*c = conn{side: [2]side{none, none}, index: c.index, seq: seq, cell: -1, prev: -1, next: -1}
	s.live++
	return c
}

func (s *slab) give(c *conn) {
	c.state = unused
	c.seq++ // events and timers that are still on their way no longer match
	if c.seq <= 0 {
		c.seq = 1
	}
	c.next, s.free = s.free, c.index
	s.live--
}

// find gives the record that a key was made for, nil if it has ended since.
func (s *slab) find(index, seq int32) *conn {
	c := s.at(index)
	if c.seq != seq || c.state == unused {
		return nil
	}
	return c
}

// all calls f for every record in use; f may give the record back.
func (s *slab) all(f func(*conn)) {
	for _, part := range s.chunks {
		for i := range part {
			if part[i].state != unused {
				f(&part[i])
			}
		}
	}
}
