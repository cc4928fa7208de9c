package proxy

import "golang.org/x/sys/unix"

// splices tells whether the next bytes of src go to dst by splice. From a unix
// socket to TCP they do not: that costs more than to copy them in large pieces.
func (p *pump) splices(src, dst *side) bool {
	return src.flags&(stream|plain) == stream && !dst.is(failed) && p.store.held <= muchHeld &&
		(src.is(isTCP) || !dst.is(isTCP))
}

// spliced carries one pipe of bytes from a stream. False: do it by a read.
func (p *pump) spliced(c *conn, from int) bool {
	src, dst := &c.side[from], &c.side[1-from]
	if !p.withPipe() {
		src.flags &^= stream
		return false
	}
	most := spliceSize
	if p.lentPipe >= p.maxPipes {
		most = bufferSize // what gets stuck will have to go to a buffer
	}
	n, errno := p.sys.splice(src.fd, p.pipe.w, most)
	switch {
	case errno == unix.EINVAL || errno == unix.ENOSYS || errno == unix.EPERM:
		src.flags |= plain
		return false
	case errno != 0 || n == 0:
		p.over(c, from, errno)
		return true
	}
	p.moved[from] += uint64(n)
	c.active = p.tick
	if n < fewBytes {
		src.flags &^= stream
	}
	p.undelay(dst)
	p.unpace(dst, from)
	for n > 0 {
		m, errno := p.sys.splice(p.pipe.r, dst.fd, n)
		if errno == unix.EINTR {
			continue
		}
		if errno == 0 && m == 0 {
			errno = unix.EIO // cannot be; it must not spin
		}
		if errno != 0 {
			if p.refused(c, 1-from, errno) {
				p.holdPipe(src, n)
			} else {
				p.dropPipe()
			}
			return true
		}
		n -= m
	}
	return true
}
