package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Handover is what a generation that is a unit gets from its proxyd.
type Handover struct {
	Service    string `json:"service"`
	Generation uint64 `json:"generation"`
	Release    string `json:"release"`
	// Environment is set in the generation, beside what systemd set.
	Environment map[string]string `json:"environment"`
	// Names of the listening sockets, as in LISTEN_FDNAMES.
	Names []string `json:"names"`
	// FDs are the sockets, in the order of Names. Whoever has the Handover owns
	// them.
	FDs []int `json:"-"`
}

// MaxHandover is how many sockets a Handover may have: far below what one
// message carries (SCM_MAX_FD in unix(7)).
const MaxHandover = 64

// handover answers a generation's process with its sockets.
func (s *Server) handover(w http.ResponseWriter, r *http.Request, c *conn) {
	if s.cfg.Handover == nil {
		s.refuse(w, http.StatusNotFound, &Error{Code: Usage, Message: "this proxyd's generations are its children and have their sockets from the start",
			Hint: `proxyctl exec is for driver = "systemd"`})
		return
	}
	peer, err := s.gate.peerOf(c)
	if err != nil {
		s.reply(w, nil, err)
		return
	}
	defer peer.close()
	ctx, cancel := context.WithTimeout(r.Context(), s.cfg.WriteTimeout)
	defer cancel()
	h, err := s.cfg.Handover(ctx, peer.pid)
	if err == nil && len(h.FDs) > MaxHandover {
		err = fmt.Errorf("hand over %d sockets: at most %d can be", len(h.FDs), MaxHandover)
	}
	if err == nil && !peer.lives() {
		err = errors.New("the process that asked has ended") // its number may be another's by now
	}
	if err != nil {
		closeAll(h.FDs)
		s.reply(w, nil, err)
		return
	}
	c.rights = h.FDs
	s.reply(w, h, nil)
}

// Write sends p, with what rights is to go along. The descriptors are closed
// here afterwards.
func (c *conn) Write(p []byte) (int, error) {
	if len(c.rights) == 0 {
		return c.Conn.Write(p)
	}
	fds := c.rights
	c.rights = nil
	defer closeAll(fds)
	u, ok := c.Conn.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("send descriptors: %T is not a unix connection", c.Conn)
	}
	n, _, err := u.WriteMsgUnix(p, unix.UnixRights(fds...), nil)
	if err != nil || n == len(p) {
		return n, err
	}
	more, err := c.Conn.Write(p[n:])
	return n + more, err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// Handover asks for the sockets of the generation that this process belongs to.
// The descriptors are the caller's, with FD_CLOEXEC.
func (c *Client) Handover(ctx context.Context) (h Handover, err error) {
	conn, err := dial(ctx, c.path)
	if err != nil {
		return Handover{}, c.explain(ctx, err)
	}
	defer conn.Close()
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return Handover{}, &Error{Code: Failed, Message: fmt.Sprintf("dial control socket: a %T came", conn)}
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })()
	r := &receiver{UnixConn: u}
	defer func() {
		if err != nil {
			closeAll(r.fds)
			h = Handover{}
		}
	}()
	// Not by c.http: what it reads with would not take the descriptors, and its
	// goroutines may read on when the answer is there.
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://proxyd"+handoverPath, strings.NewReader("{}"))
	if err != nil {
		return h, &Error{Code: Failed, Message: err.Error()}
	}
	req.Close = true
	if err := req.Write(conn); err != nil {
		return h, c.explain(ctx, err)
	}
	res, err := http.ReadResponse(bufio.NewReader(r), req)
	if err != nil {
		return h, c.explain(ctx, err)
	}
	defer res.Body.Close()
	if err := c.refusal(ctx, res); err != nil {
		return h, err
	}
	if err := c.read(ctx, res, &h); err != nil {
		return h, err
	}
	if h.FDs = r.fds; len(h.FDs) != len(h.Names) {
		return h, c.strange(fmt.Sprintf("%d sockets came, %d were named", len(h.FDs), len(h.Names)))
	}
	return h, nil
}

// receiver keeps the descriptors that come with what is read.
type receiver struct {
	*net.UnixConn
	fds []int
}

// Read is that of a connection, but for the descriptors, which the kernel would
// drop. Go asks for them with MSG_CMSG_CLOEXEC.
func (r *receiver) Read(p []byte) (int, error) {
	control := make([]byte, unix.CmsgSpace(4*MaxHandover))
	n, controlled, _, _, err := r.ReadMsgUnix(p, control)
	if messages, bad := unix.ParseSocketControlMessage(control[:controlled]); bad == nil {
		for i := range messages {
			if fds, bad := unix.ParseUnixRights(&messages[i]); bad == nil {
				r.fds = append(r.fds, fds...)
			}
		}
	}
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}
