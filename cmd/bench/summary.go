package main

import "slices"

// values are a row's measurements of one metric, one a round.
func (r *row) values(m metric) []float64 {
	var v []float64
	for _, x := range r.rounds {
		if f, ok := m.value(x); ok {
			v = append(v, f)
		}
	}
	return v
}

func (r *row) spread(m metric) spread { return spreadOf(r.values(m)) }

// best is the best median among the peers: all but proxyd and no proxy at all. 0
// means that there is none.
func (e *entry) best(m metric) float64 {
	best := 0.0
	for _, r := range e.rows {
		if r.peer.ours || r.peer.direct {
			continue
		}
		s := r.spread(m)
		if s.Rounds == 0 {
			continue
		}
		if best == 0 || m.more && s.Median > best || !m.more && s.Median < best {
			best = s.Median
		}
	}
	return best
}

func (e *entry) row(peer string) *row {
	i := slices.IndexFunc(e.rows, func(r *row) bool { return r.peer.name == peer })
	if i < 0 {
		return nil
	}
	return e.rows[i]
}

func (e *entry) metric(name string) metric {
	all := e.workload.metrics()
	return all[slices.IndexFunc(all, func(m metric) bool { return m.name == name })]
}

func (res *results) entry(kind, workload string) *entry {
	i := slices.IndexFunc(res.entries, func(e *entry) bool { return e.kind == kind && e.workload.name == workload })
	if i < 0 {
		return nil
	}
	return res.entries[i]
}

// failures are all of a row's, over the rounds.
func (r *row) failures() failures {
	f := failures{}
	for _, m := range r.rounds {
		f.add(m.Failures)
	}
	return f
}

// foreignShare is how much of the machine went to somebody else, as a share of
// all processors' time, over all measurements.
func (res *results) foreignShare(processors int) float64 {
	var foreign, wall float64
	for _, e := range res.entries {
		for _, r := range e.rows {
			for _, m := range r.rounds {
				if e.workload.kind == requests || e.workload.kind == bulk {
					foreign += m.ForeignCPU
					wall += m.Seconds * float64(processors)
				}
			}
		}
	}
	return ratio(foreign, wall)
}
