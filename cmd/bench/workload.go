package main

// workload is one thing that is measured.
type workload struct {
	name  string
	title string
	how   string // one or two sentences for the reader
	kind  kind

	busy    int    // requests in flight at once, or streams
	open    int    // connections that the requests use in turn; 0: as many as busy
	idle    int    // further connections that rest
	perConn int    // requests a connection; 0: it stays
	ask     string // of the bulk kinds
}

type kind int

const (
	requests kind = iota
	bulk
	memory
	promote
)

// The numbers of issue 3.
const (
	manyOpen   = 5000
	someIdle   = 1000
	busyOnes   = 64
	bulkOnes   = 4
	askedSmall = "64-byte requests, 1,024-byte responses"
)

func allWorkloads() []*workload {
	return []*workload{
		{name: "keep-1", title: "Keep-alive, 1 client", busy: 1,
			how: "One connection, " + askedSmall + ", the next when the last is answered: latency with no queue."},
		{name: "keep-64", title: "Keep-alive, 64 clients", busy: busyOnes,
			how: "64 connections, " + askedSmall + ", each client asks again at once."},
		{name: "keep-1000", title: "Keep-alive, 1,000 clients", busy: 1000,
			how: "The same with 1,000 connections, all of them busy."},
		{name: "connect", title: "Connection per request, 64 clients", busy: busyOnes, perConn: 1,
			how: "64 clients; each connects, asks once, and the backend closes; answered means that the end of stream came."},
		{name: "down", title: "Bulk from the backend", kind: bulk, busy: bulkOnes, ask: askDown,
			how: "4 connections, each downloads its share in one stream; the load reads every byte."},
		{name: "up", title: "Bulk to the backend", kind: bulk, busy: bulkOnes, ask: askUp,
			how: "4 connections, each uploads its share in one stream and waits for the answer."},
		{name: "both", title: "Bulk both ways at once", kind: bulk, busy: bulkOnes, ask: askBoth,
			how: "4 connections, each uploads and downloads at once; bytes of both directions are added."},
		{name: "idle", title: "5,000 idle connections", kind: memory, open: manyOpen,
			how: "A fresh proxy; resident memory before 5,000 connections are opened and after each has carried one request. What a proxy sets aside when it starts shows in the memory before."},
		{name: "idle-1000", title: "64 busy clients beside 1,000 idle connections", busy: busyOnes, idle: someIdle,
			how: "As keep-64, while 1,000 more connections are open and silent."},
		{name: "open-5000", title: "5,000 open connections, 64 of them busy", busy: busyOnes, idle: manyOpen - busyOnes,
			how: "As keep-64, while 4,936 more connections are open and silent."},
		{name: "turn-5000", title: "5,000 open connections, used in turn", busy: busyOnes, open: manyOpen,
			how: "64 requests in flight at any time, each on the connection that rested longest: nothing is warm in any cache, the kernel's own state neither."},
		{name: "promote", title: "Promote under load", kind: promote, busy: busyOnes, perConn: 4,
			how: "4,000 requests a second, due at fixed times, 4 on each connection. A generation is staged, three seconds later promoted; p99.9 in the second around the promote (half before, half after the call) beside the second before that, pooled over a round's promotes. noise is the same ratio between two seconds without a promote. Each promote is reverted a moment later; revert is the time from the request to the switch, as proxyd measured it. first after is the slowest of the first connections after each promote has returned, from connect(2) to the last byte of the answer, by a client that stood ready; one before is the same just before the promote."},
	}
}

// connections is how many are open at once.
func (w *workload) connections() int { return max(w.busy, w.open) + w.idle }

// fits tells whether a peer can hold the workload's connections within
// maxDescriptors, and how many it can where not.
func (w *workload) fits(p *peer) (int, bool) {
	if p.perConn == 0 {
		return w.connections(), true
	}
	most := (maxDescriptors - 200) / p.perConn
	return most, w.connections() <= most
}

// metric is one column of the report.
type metric struct {
	name  string // in JSON
	title string
	more  bool // more is better
	value func(measurement) (float64, bool)
}

// measurement is what one peer did in one round of one workload.
type measurement struct {
	Seconds     float64   `json:"seconds"`
	Requests    int64     `json:"requests,omitempty"`
	Bytes       int64     `json:"bytes,omitempty"`
	P50         float64   `json:"p50_us,omitempty"`
	P99         float64   `json:"p99_us,omitempty"`
	ProxyCPU    float64   `json:"proxy_cpu_s"`
	MachineCPU  float64   `json:"machine_cpu_s"`
	ForeignCPU  float64   `json:"foreign_cpu_s"`
	Connections int       `json:"connections,omitempty"`
	Before      int64     `json:"resident_before_bytes,omitempty"`
	Resident    int64     `json:"resident_bytes,omitempty"`
	Promotes    *promoted `json:"promotes,omitempty"`
	Failures    failures  `json:"failures,omitempty"`
}

// promoted is what the promote workload saw in one round; latencies are p99.9 in
// microseconds.
type promoted struct {
	Count       int     `json:"count"`
	Around      float64 `json:"around_us"`
	Steady      float64 `json:"steady_us"`
	Earlier     float64 `json:"earlier_us"` // the second before the steady one
	SwitchMS    float64 `json:"switch_ms"`  // the slowest promote call
	FirstMS     float64 `json:"first_ms"`   // the slowest first connection after one, to the end of its answer
	BeforeMS    float64 `json:"before_ms"`  // the same, of one just before each
	RevertMS    float64 `json:"revert_ms"`  // the median revert, from the request to the switch
	RevertMaxMS float64 `json:"revert_max_ms"`
	AroundMax   float64 `json:"around_max_us"`
}

func always(f func(m measurement) float64) func(measurement) (float64, bool) {
	return func(m measurement) (float64, bool) { return f(m), true }
}

// metrics are the columns for a workload.
func (w *workload) metrics() []metric {
	perRequest := func(s float64, m measurement) float64 { return s * 1e6 / float64(max(1, m.Requests)) }
	perGB := func(s float64, m measurement) float64 { return s * 1e9 / float64(max(1, m.Bytes)) }
	proxied := func(f func(m measurement) float64) func(measurement) (float64, bool) {
		return func(m measurement) (float64, bool) { return f(m), m.ProxyCPU > 0 }
	}
	switch w.kind {
	case bulk:
		return []metric{
			{"throughput", "Gbit/s", true, always(func(m measurement) float64 { return float64(m.Bytes) * 8 / 1e9 / m.Seconds })},
			{"proxy_cpu", "proxy CPU s/GB", false, proxied(func(m measurement) float64 { return perGB(m.ProxyCPU, m) })},
			{"machine_cpu", "machine CPU s/GB", false, always(func(m measurement) float64 { return perGB(m.MachineCPU, m) })},
		}
	case memory:
		return []metric{
			{"resident", "KB/connection", false, func(m measurement) (float64, bool) {
				return float64(m.Resident-m.Before) / 1024 / float64(max(1, m.Connections)), m.ProxyCPU > 0
			}},
			{"before", "MB before", false, always(func(m measurement) float64 { return float64(m.Before) / (1 << 20) })},
			{"after", "MB with them", false, always(func(m measurement) float64 { return float64(m.Resident) / (1 << 20) })},
		}
	case promote:
		return []metric{
			{"around", "p99.9 around µs", false, always(func(m measurement) float64 { return m.Promotes.Around })},
			{"steady", "p99.9 steady µs", false, always(func(m measurement) float64 { return m.Promotes.Steady })},
			{"ratio", "around/steady", false, always(func(m measurement) float64 { return m.Promotes.Around / m.Promotes.Steady })},
			{"noise", "noise", false, always(func(m measurement) float64 { return m.Promotes.Earlier / m.Promotes.Steady })},
			{"worst", "worst around µs", false, always(func(m measurement) float64 { return m.Promotes.AroundMax })},
			{"failures", "failures", false, always(func(m measurement) float64 { return float64(m.Failures.total()) })},
			{"switch", "promote call ms", false, always(func(m measurement) float64 { return m.Promotes.SwitchMS })},
			{"revert", "revert ms", false, always(func(m measurement) float64 { return m.Promotes.RevertMS })},
			{"slowest_revert", "slowest revert ms", false, always(func(m measurement) float64 { return m.Promotes.RevertMaxMS })},
			{"first", "first after ms", false, always(func(m measurement) float64 { return m.Promotes.FirstMS })},
			{"one_before", "one before ms", false, always(func(m measurement) float64 { return m.Promotes.BeforeMS })},
		}
	default:
		return []metric{
			{"throughput", "requests/s", true, always(func(m measurement) float64 { return float64(m.Requests) / m.Seconds })},
			{"p50", "p50 µs", false, always(func(m measurement) float64 { return m.P50 })},
			{"p99", "p99 µs", false, always(func(m measurement) float64 { return m.P99 })},
			{"proxy_cpu", "proxy CPU µs/req", false, proxied(func(m measurement) float64 { return perRequest(m.ProxyCPU, m) })},
			{"machine_cpu", "machine CPU µs/req", false, always(func(m measurement) float64 { return perRequest(m.MachineCPU, m) })},
		}
	}
}
