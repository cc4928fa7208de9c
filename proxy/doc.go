// Package proxy is the data path: it takes clients from listening sockets and
// relays them, byte for byte, to the generation that is switched in.
//
//	p, err := proxy.New(proxy.Config{Listeners: listeners, Log: log})
//	r, err := p.NewRoute(3, map[string]net.Addr{"http": addr})
//	p.Switch(r)                // new clients go to generation 3
//	...
//	p.Switch(next)             // from the return on, none goes to 3
//	<-r.Drained()              // what 3 still served has ended
//
// # What it promises
//
//   - After Switch has returned, no connection accepted later reaches another
//     route, and the in-flight count of the route before can only fall.
//   - Nobody is refused. Clients wait in the listener's queue during a Hold,
//     while nothing is switched in, at the limit of connections, and while
//     descriptors or memory are short.
//   - Bytes are carried exactly. Each direction's end of stream is carried on
//     its own. A reset is passed on as a reset, after every byte before it.
//   - A connection that was reset, cut or timed out never looks complete.
//   - A peer that does not read costs a bounded amount.
//   - What a client says of its address is believed from trusted ones only.
//
// # How it works
//
// There is one loop per CPU, a goroutine with an epoll of its own. It takes
// what is ready (loop.go), and does everything with non-blocking system calls
// that the scheduler of Go is not told of (sys.go); only its sleep is told.
// Loops share the listeners with EPOLLEXCLUSIVE, so a new client wakes one of
// them. The kernel prefers the same one as long as it sleeps: a loop that has
// clearly more connections than another hands new ones over (accept.go).
//
// A connection is a flat record of two sides (conn.go). It stands for two
// descriptors, so it has an index of its own. epoll gives that back, and with it
// a sequence number: an event may be left of a connection that ended earlier in
// the same turn, whose descriptor is another's by then.
//
// The pump moves bytes from one side to the other (pump.go): small messages
// through the loop's one buffer; those of a turn are written at its end
// (postpone.go), all by one call where the kernel lets us have an io_uring
// (ring.go). A read that fills the buffer is a stream, and streams go by
// splice(2) through the loop's one pipe (stream.go), or, from a unix socket to
// TCP, through a larger buffer. Only what the other side does not take is kept,
// in the pipe or in a buffer that is lent for as long as it is stuck (store.go),
// and the side it comes from is not read meanwhile. ending.go decides what each
// end sees.
//
// A client is given a backend when it is accepted (dial.go). A backend that
// cannot be reached is tried again until the connect timeout, and each try
// takes the route of its moment: no byte was forwarded yet. What is cheaper
// where both ends are on this machine is in local.go.
//
// Where a listener says so, the first bytes for the backend are a header of
// the PROXY protocol (header.go). One that a trusted client begins with stays
// in its socket until the backend is reached (introduce.go): it is looked at
// with MSG_PEEK, so that waiting for it needs no memory. Whether a client is
// trusted is decided by its address alone, and then it must begin with one.
//
// # The fence
//
// A loop reads the route, counts the connection on it and connects within one
// turn. Switch swaps the route, gives every loop a command and waits for all:
// commands are carried out between turns, so what read the old route before
// has been counted on it, and nothing reads it afterwards. A connection that
// waits for its first connect may leave the old route later; none joins it.
// The loops' counts are apart (route.go) and InFlight is their sum, which is
// exact as soon as they can only fall.
//
// # Endings
//
// Edge-triggered events allow to save calls, and each saving rests on a fact:
//
//   - A short read of a stream socket means empty, and a short write full; an
//     edge follows (epoll(7)). Not in front of urgent data (EPOLLPRI says so),
//     after an error, or from a unix client, who might pass descriptors: these
//     are read until EAGAIN.
//   - A short read after EPOLLRDHUP without an error is the last: the 0 is not
//     read. The last bytes are sent with MSG_MORE, as shutdown(2) or close(2)
//     follows in the same turn and takes them along in one packet.
//   - A reset is reported once, to whichever call sees it first: after a write
//     that failed the side is read to its end, and that end is a reset. What
//     was received before a reset can be read after it.
//   - A reset throws away what is on its way, so before it is passed on the
//     peer's kernel must have acknowledged everything (SIOCOUTQ). A unix peer
//     holds all bytes at once; it cannot be reset, and is closed.
//   - A unix peer that closed both halves can take nothing more. Where the
//     client has nothing unread the client is then closed as well, as the
//     peer's own close would on a direct connection; the kernel delivers what
//     is unsent and bounds the rest (tcp_fin_timeout). A TCP peer that closed
//     looks like one that ended only its stream, and is waited for.
//
// # The direct path
//
// A generation that is handed listening sockets needs no relay. Direct lends it
// a member of the listener's SO_REUSEPORT group, and the kernel gives the
// member each new client (lend.go, steer.go). What decides is a classic BPF
// program of one instruction, "return INDEX", attached to the group; no
// privilege is needed, and a switch replaces it in one step. All groups of a
// service have the same number of members, and a generation has the same one in
// each. The first is the hold member, from which only the relay accepts.
//
//   - An index is the order of listen(2). A member that is closed, or shut down by
//     anybody who has it, leaves the group, and the last one is moved to its place. So
//     none is closed here, but programs do shut theirs down, to wake a thread out of
//     accept(2). Therefore who is steered to is kept apart from the index that it has
//     (order.go): it is followed which members leave, those that are nobody's listen
//     again at once, the others before their next start, and where the current one's is
//     down clients wait (shut.go). The last member is not lent where there are more
//     than three, so that in the moment before it is noticed no client comes to a
//     generation that is not current; where several leave in one moment, or none is
//     spare, one may. What waits in a socket's queue when it is shut down the kernel
//     resets (with net.ipv4.tcp_migrate_req it moves what it can to any member).
//   - The index of each is checked before it is lent: a connection that is aimed at it
//     must arrive there. After
//     every change the places of all are read back (recheck.go). A connection
//     of our own is aimed by its source address and port, which only we can have;
//     the program knows them while it connects. Readiness checks reach a
//     generation that gets no client in the same way.
//   - A connection is its generation's from its handshake's begin on: the old
//     member's queue stays the old generation's, and what is in a queue of nobody,
//     because it was held or its generation was given up, the relay takes to the
//     listener's own address, where the kernel gives it to the current one.
//     So the relay's route must not lead there while the groups are held. Should the
//     kernel lead back to the relay all the same, that is noticed by the first client
//     which is a connection of the relay itself (astray.go). A member
//     that came back is lent again once the handshakes are over that may still
//     come to it (late.go). Where clients wait in all queues before anybody was
//     served, the relay keeps those of one until there is somebody (cold.go). A
//     program that opens a socket of its own at the address joins the group behind
//     the members, which does no harm to them, and is told of (strangers.go).
//   - In flight is what the kernel says (tally.go, diag.go). Each member carries
//     its index as a tag of socket options that connections inherit (tag.go), so
//     the answer is exact wherever a socket went: still in the queue, passed to
//     a worker, forked. It needs no right to look at processes. Where a program sets
//     one of these options itself, it is still exact, or the generation is not taken
//     for drained before its deadline. A handshake has
//     no tag: those under way at the switch are waited for one by one.
//     Looks are rare while nothing changes, and take a 25th of a processor at
//     most. A status costs one look, and cmd/proxyd bounds how many there are.
//   - What is no generation any more may accept until it has ended. Its member is
//     lent to nobody before (withhold.go).
//   - A generation that got no member is relayed, and stays so: a running process
//     cannot be handed a socket. What was considered to make its own socket a
//     member: a second socket at its start breaks programs that take exactly one;
//     to disconnect its private socket and bind it to the listener's address
//     breaks a program that is in accept(2), and inet_csk_get_port refuses it
//     where systemd has made the group, as its owner is another (sk_uid, which
//     only CAP_CHOWN changes); sk_lookup needs CAP_BPF. So backend starts its
//     release once more when Free says that there is a member.
//   - Generations may outlive the group: the address is another by now, or its sockets
//     were opened anew, and join those that generations still hold. Nothing leads new
//     connections to such a one, and what it has is counted to its end (former.go,
//     apart.go).
//   - Whether a member blocks is its generation's affair while it has it, and not
//     touched here. But systemd sets it on all members each time that it starts
//     proxyd, so a program that counts on accept(2) to wait is relayed there
//     (cmd/proxyd/fit.go).
//   - Steering belongs to the sockets. It stays in force while no proxyd runs, and
//     a new Direct leaves it as it is until it is told where to steer. It then looks
//     first where new connections go: they go on to go there, or it is said that
//     they went elsewhere (recognise.go).
//
// What the kernel does not tell is not known on this path: how many were
// accepted, and bytes. Limits and timeouts are the relay's. A client that was
// relayed to a direct generation, out of a queue, shows this machine's address.
//
// # Ownership
//
// Listeners are borrowed: options are set on them (TCP_NODELAY, keepalive,
// O_NONBLOCK), they are never closed. Everything else belongs to one loop:
// records, lent pipes and buffers, sockets. No locks and no atomics guard it.
// Atomics are: the route, the counts, the number of connections. Close ends
// the goroutines and closes every descriptor. New raises GOMAXPROCS to two
// more than there are loops.
//
// # What was measured and decided
//
// cmd/bench on two cores, Linux 6.18 with BBR, Go 1.26, HAProxy 2.6, nginx
// 1.22 stream: the ratios of medians of one run, five rounds, while other programs
// used 7 % of the processors; in brackets of another, seven rounds and 5 %. CPU is
// the proxy's own.
//
//	                                              tcp backend   unix backend  goal
//	keep-alive, 64: CPU, to the better            0.74 (0.71)   0.73          0.9
//	keep-alive, 64: p99, to the better            0.89 (0.86)   0.90          1
//	connection per request: CPU, to the better    0.87 (0.83)   0.81          0.9
//	bulk down: CPU, to HAProxy                    0.20 (0.17)   0.35          0.25
//	bulk up: CPU, to HAProxy                      0.16 (0.16)   0.20          0.25
//	bulk both ways: CPU, to HAProxy               0.22 (0.19)   0.30          0.25
//	bulk down: throughput, to no proxy            0.56 (0.69)   0.78          0.8
//	bulk up: throughput, to no proxy              0.66 (0.70)   0.61          0.8
//	bulk both ways: throughput, to no proxy       0.62 (0.62)   0.75          0.8
//	idle connection: resident KB                  0.00          0.01          0.3
//	5,000 open, 64 busy: CPU, to 64               1.00          0.96          1.1
//	5,000 open, used in turn: CPU, to 64          1.45          1.36          1.1
//	promote: p99.9, to the steady one             0.88 (1.12)   1.06          1.2
//
// The direct path beside no proxy, the medians of eleven rounds, while other
// programs used 2 %: a difference is one of chance, as the work is the same.
//
//	keep-alive, 64: CPU of the machine; p99              1.00; 0.78    1.02
//	connection per request: CPU of the machine; p99      1.00; 0.91    1.02
//	first connection after a promote, to its end         0.45 ms       1 ms
//	the same just before it                              0.16 ms
//	1,000 switches, back to back but for a third, under  11,800 connections a second
//
// Without io_uring, which a container's seccomp(2), the sysctl
// kernel.io_uring_disabled or a small RLIMIT_MEMLOCK may refuse (the log says so),
// keep-alive with 64 is at 0.99 and its p99 at 1.05. An idle connection is a record
// of 72 bytes, too few to be seen among what the runtime frees meanwhile.
//
// Where a goal is not met:
//
//   - Throughput of streams, to no proxy: load, backend and proxy share two
//     processors and use them up, so it is the CPU of all three that decides,
//     down 0.46 s/GB (of the run in brackets) for 0.32 without a proxy, and 0.11
//     are ours. That is one
//     more pass through TCP for each packet of 64 KB: 93 % is splice(2), a fifth
//     wakes the reader, an eighth are the timers of BBR's pacing, which ends only
//     in part once a client's connection is made. Next: larger packets on the
//     loopback device (gso_ipv4_max_size, see ip-link(8)), which is the host's to
//     set. The direct path is at 0.84 to 1.08.
//   - Streams from a unix backend to TCP: one copy in and one out. Pieces of 128
//     and 512 KiB cost 1.1 to 1.2 of those of 256. Next: nothing that is known.
//   - In turn over 5,000: what is cold is the kernel's state of four sockets
//     for each connection. HAProxy and nginx pay 1.5 to 1.8 times their own cost
//     as well; ours is 0.58 to 0.69 of the better of them. Next: nothing here; the
//     direct path has half of the sockets.
//
// What was decided on the way, each by interleaved rounds of both:
//
//   - Messages are written at the end of a turn (postpone.go): 0.85 to 1.03 of
//     the CPU in six runs, the median 0.93; p99 0.72 to 0.94. All by one call of
//     io_uring_enter(2) (ring.go): another 0.74 of the CPU with 64 clients, 0.87
//     with 1,000, p99 0.72 to 0.83. It is not the calls that are saved, which are
//     150 ns each: who is woken gets the processor after the call and not in the
//     middle of the turn. To read by it as well gave 0.97 to 0.99, and is not kept;
//     a multishot receive would need memory for each connection that is idle.
//   - Streams within the machine are not paced (local.go): down 0.72 and up
//     0.55 of the CPU, up twice the throughput. Setting that for each backend
//     connection cost connections 3 to 5 %, so it is done once streams go up.
//   - A connect over loopback ends in its turn, and its last ACK goes with the
//     first bytes: 0.96 to 0.98 of the CPU of a connection, 8 pure ACKs in
//     place of 11.
//   - From unix sockets to TCP a copy in 256 KiB pieces costs 0.71 of a splice;
//     in 64 KiB pieces as much as one. From TCP a copy costs 2.2 to 2.8 times a
//     splice.
//   - Tried, and not kept: to look again up to 40 times before sleeping (1.8 of
//     the CPU with one client, nothing gained with 64), SCHED_BATCH, and slices
//     of 0.1 and 10 ms (1.00 to 1.04). Pipes of 256 and 512 KiB: 1.8 of the CPU
//     of a stream; of 2 MiB, which only root may have: 0.93.
//   - Tried, and not kept: sockmap (SK_SKB stream_verdict, redirect of both
//     directions) on 6.18. On a calm machine 1.07 of splice's throughput down,
//     0.92 up and 0.73 both ways, beside other load 0.7 to 0.9: the work moves to
//     the kernel's own threads, and only a tenth of it goes away. It is not exact:
//     a segment that partly overlaps what was received is sent on whole, so 3 of
//     1,800 connections over a lossy link had bytes twice. It does not push back:
//     for a client that read nothing the kernel took 4 GiB, charged to nobody,
//     where a direct connection took 3 MiB. A stream parser cures the first, not
//     the second. Endings could be made exact, by comparing what one socket
//     received with what the other was given before shutdown(2): 42 GB over 3,200
//     connections without a fault; 88 of 300 broke without that.
//   - A request costs two reads and its share of two calls that write; a
//     connection to a TCP backend that closes costs 16 calls, to a unix backend 11.
//   - The first bytes of a client are not waited for: a server that speaks first
//     would be waited for in vain. What is there already goes with the connect.
//   - Sockets that are handed to a relayed generation are unix ones by default:
//     0.81 of the CPU of TCP with keep-alive, 0.56 with a connection per request.
//   - The runtime's monitor took 10 % while every processor was in use and
//     loops slept: hence the two more, and a yield every 5 ms. A goroutine
//     locked to its thread pays for each yield with two thread switches, so
//     the loops are not locked: 16.0 µs became 14.1 in one run.
//   - A pipe of 1 MiB took 0.18–0.29 s/GB, one of 64 KiB 0.34–0.40 in the same
//     run. An unprivileged user has 64 MiB of them (pipe(7)), so at most 16 a
//     loop are lent at a time; then streams go in 64 KiB pieces and what is
//     stuck of them is copied to a buffer, and from 32 MiB of these on in
//     4 KiB pieces. With smaller pipes, or none, it works and is slower.
//   - EPOLLOUT is asked for at the first full write only: a unix socket
//     reports it each time its peer reads.
//   - TCP_NODELAY on a backend is set before the second write: the first is
//     never delayed. Clients inherit it from the listener.
//   - TCP_USER_TIMEOUT also ends a peer that lives and does not read, so it is
//     only set where the configuration limits idle time.
//   - A connection that times out is reset, not ended: nobody ended it.
//
// # What it is not for
//
// It reads nothing of what it carries: no HTTP, no TLS, no datagrams, no
// descriptors passed over unix sockets (they are dropped, the bytes are not),
// and urgent data loses its mark, and its byte, as in any relay. It starts,
// stops and checks nothing: that is the backend's.
package proxy
