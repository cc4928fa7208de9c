package main

import (
	"encoding/json"
	"io"
	"runtime"
)

// document is the report for a program. A field may be added under the same
// schema; taking one away or changing its meaning raises it.
type document struct {
	Schema     int          `json:"schema"`
	Processor  string       `json:"processor"`
	Processors int          `json:"processors"`
	Kernel     string       `json:"kernel"`
	Congestion string       `json:"tcp_congestion_control"`
	Go         string       `json:"go"`
	Rounds     int          `json:"rounds"`
	Duration   string       `json:"duration"`
	Foreign    float64      `json:"foreign_cpu_share"`
	Peers      []peerJSON   `json:"peers"`
	Results    []resultJSON `json:"results"`
	Bars       []bar        `json:"bars"`
}

type peerJSON struct {
	Name    string `json:"name"`
	Release string `json:"release,omitempty"`
	About   string `json:"about"`
	Missing string `json:"missing,omitempty"`
}

type resultJSON struct {
	Backend  string                `json:"backend"`
	Workload string                `json:"workload"`
	How      string                `json:"how"`
	Amount   int64                 `json:"amount,omitempty"`
	Peer     string                `json:"peer"`
	Note     string                `json:"note,omitempty"`
	Metrics  map[string]metricJSON `json:"metrics"`
	Rounds   []measurement         `json:"rounds"`
}

type metricJSON struct {
	Unit string `json:"unit"`
	spread
	ToBest float64 `json:"to_best_peer,omitempty"`
}

func (b *bench) reportJSON(w io.Writer, res *results) error {
	doc := document{Schema: 1, Processor: processorName(), Processors: runtime.NumCPU(), Kernel: kernelRelease(), Congestion: congestionControl(), Go: runtime.Version(),
		Rounds: b.rounds, Duration: b.duration.String(), Foreign: res.foreignShare(runtime.NumCPU())}
	for _, f := range res.peers {
		doc.Peers = append(doc.Peers, peerJSON{f.peer.name, f.release, f.peer.about, f.missing})
	}
	for _, e := range res.entries {
		for _, r := range e.rows {
			x := resultJSON{Backend: e.kind, Workload: e.workload.name, How: e.workload.how, Amount: e.amount,
				Peer: r.peer.name, Note: r.note, Metrics: map[string]metricJSON{}, Rounds: r.rounds}
			for _, m := range e.workload.metrics() {
				if s := r.spread(m); s.Rounds > 0 {
					x.Metrics[m.name] = metricJSON{m.title, s, ratio(s.Median, e.best(m))}
				}
			}
			doc.Results = append(doc.Results, x)
		}
	}
	for _, kind := range b.kinds {
		doc.Bars = append(doc.Bars, res.bars(kind)...)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(doc)
}
