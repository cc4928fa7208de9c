// Bench runs proxyd beside its peers on this machine, with the same load and the
// same backend, and says what each costs.
//
//	go run ./cmd/bench                     everything, about half an hour
//	go run ./cmd/bench --quick             the same with short measurements
//	go run ./cmd/bench --workloads keep-64,down --peers proxyd,haproxy -o json
//
// # Method
//
// Three parties run at once, on loopback only: the load (this process: one
// locked thread per processor, each an epoll loop), the proxy under test, and a
// backend (this program again, one epoll loop per processor). Every peer has a
// backend process of its own; all of them are the same program. A request is 64
// bytes and a response 1,024, and every response is checked for its length and
// its first bytes.
//
// All proxies run for the whole time; those not measured have nothing to do.
// Within a round each workload is measured for one peer after the other, and the
// order moves on with each round, so that a machine that grows slower or warmer
// does so for all. The number of requests (or bytes) of a workload is found once,
// on the first proxy, and is the same for all peers and rounds. Reported are the
// median over the rounds, the smallest and the largest.
//
// Counted, per measurement, between the moment when the connections are open and
// warm and the end of the last response:
//
//   - throughput, and p50 and p99 over every single response, as a client sees
//     them;
//   - proxy CPU: the CPU clocks of the proxy's processes (clock_getcpuclockid(3),
//     in nanoseconds, threads that ended included), by request or by GB. It holds
//     what the kernel does in the name of the proxy, and on loopback that includes
//     the receiving side of what it sends. proxyd's child, the backend, is not
//     part of it;
//   - machine CPU: what all processors did but idle (/proc/stat, 10 ms steps), the
//     load, the backend and everything else on the machine included;
//   - resident memory of an idle connection: the growth of Rss in
//     /proc/PID/smaps_rollup of a freshly started proxy from before the
//     connections are opened until after each has carried one request, by
//     connection. The kernel's socket buffers are not in it, for anybody. A program
//     with a garbage collector may give memory back meanwhile, so some 0.1 KB
//     either way mean nothing, and less than nothing is possible.
//
// # Limits
//
// The load and the backend take their part of the same processors, so throughput
// is that of the whole arrangement; the cost of the proxy alone is the CPU
// column. Closed loops (all workloads but promote) send the next request when the
// last was answered, so a latency there is that of a saturated machine. The
// promote workload is an open loop: requests are due at fixed times, and their
// latency counts from when they were due. What else runs on the machine disturbs
// all of it: the report says how much CPU nobody here accounts for.
package main
