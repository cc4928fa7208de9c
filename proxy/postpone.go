package proxy

// postponed is what a turn has read and writes at its end: small messages, at
// most one of a connection. Each write wakes who waits for it, and often gives
// the processor to it there and then; a peer that is woken after a whole turn
// finds more to do. That took some 7 % off the CPU of a request.
type postponed struct {
	writes []write
	bytes  []byte
}

type write struct {
	key  key // side: where it comes from
	at   int // in bytes
	size int
}

// postpone takes a message that was read whole, if its write can wait: when
// nothing else of the connection depends on it. Any other event of the
// connection writes it first.
func (p *pump) postpone(c *conn, from int, b []byte) bool {
	src, dst := &c.side[from], &c.side[1-from]
	if len(b) > smallBuffer || len(p.bytes)+len(b) > bufferSize || c.late != 0 ||
		src.is(readable) || (src.flags|dst.flags)&(ended|failed) != 0 || dst.flags&(blocked|nagle) != 0 {
		return false
	}
	p.writes = append(p.writes, write{c.key(from), len(p.bytes), len(b)})
	p.bytes = append(p.bytes, b...)
	c.late = uint16(len(p.writes)) // at most bufferSize of at least a byte
	return true
}

// catchUp writes what of a connection was postponed.
func (p *pump) catchUp(c *conn) {
	if c.late == 0 {
		return
	}
	w := p.writes[c.late-1]
	c.late = 0
	p.write(c, int(w.key.ref&1), p.bytes[w.at:w.at+w.size])
}

// deliver writes all that was postponed. It is called at the end of each turn.
func (p *pump) deliver() {
	for _, w := range p.writes {
		// One that has ended since is found no more, and none is postponed
		// here: settle goes on with endings only.
		if c := p.slab.find(w.key.ref>>1, w.key.seq); c != nil && c.late != 0 {
			p.catchUp(c)
			p.settle(c)
			if p.settled != nil {
				p.settled(c)
			}
		}
	}
	p.writes, p.bytes = p.writes[:0], p.bytes[:0]
}
