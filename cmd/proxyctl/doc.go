// Command proxyctl tells a running proxyd what to do: one file per verb.
//
// # What is written where
//
//   - Text on stdout is data: the number that stage gives, the table of status,
//     what a promote came to. With -o json it is JSON, one document a line, also
//     for an error: {"error":{...}}.
//   - stderr is for the person at the terminal: progress, remarks, `error:` and
//     `hint:` lines. Progress redraws its line on a terminal only; elsewhere
//     there is a line for each change.
//   - Colours are on a terminal only, and not with NO_COLOR or TERM=dumb.
//   - Nothing that came from outside (labels, reasons, what a generation wrote)
//     reaches the terminal unescaped: clean, and control.Encode for JSON.
//
// # Waiting
//
// A request that changes something is waited for. When the time is over (exit
// code 75) or with ^C (130) only the waiting ends: proxyd goes on. That is said
// only where the request was written.
//
// It imports the control client only, and for install the text of the units;
// everything that is decided is decided in proxyd.
package main
